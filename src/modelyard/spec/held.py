"""Hold the columns and the class that `deploy` names against the model that answers: only it knows what it has.

These are warnings: the next run may make a version that has others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from modelyard._kit.digest import short
from modelyard._kit.errors import Problem, near
from modelyard.records import ModelVersion, TableVersion, read_value

if TYPE_CHECKING:
    from modelyard.spec.spec import Spec
    from modelyard.store import Store

__all__ = ["model_warnings", "names_something"]


class _Named(NamedTuple):
    """A column that the file names, the path where it stands, and whether it has to hold texts."""

    path: str
    column: str
    text: bool = False


def names_something(spec: Spec) -> bool:
    """Say whether there is anything to hold against a model."""
    return next(_named(spec), None) is not None or _fallback(spec) is not None


def model_warnings(spec: Spec, store: Store) -> Iterator[Problem]:
    """Yield what the champion does not have, or where there is none, the newest version that was made.

    Args:
        spec: The declaration.
        store: Its store; without a version in it nothing is said.
    """
    champion = store.ledger.alias(spec.endpoint, "champion")
    model = champion.model if champion is not None else _newest(spec, store)
    if model is None:
        return
    which = f"{'champion' if champion is not None else 'newest version'} `{short(model.digest)}`"
    taken = [feature.name for feature in model.signature.features]
    texts = [feature.name for feature in model.signature.features if feature.type == "category"]
    table = _table(store)
    for path, column, text in _named(spec):
        known = texts if text else taken
        if column in known:
            continue
        word = path.split(".")[-2]
        kind = "text column" if column in taken else "column"
        yield Problem(
            "spec-column-not-taken",
            f'"{word}" names "{column}", which is no {kind} of the {which}: a server of it would not start',
            spec.where(path),
            _hint(column, known, table if column not in taken else ()),
        )
    classes, fallback = model.signature.problem.classes, _fallback(spec)
    if classes and fallback is not None and fallback not in classes:
        close = near(fallback, classes)
        yield Problem(
            "spec-class-not-answered",
            f'"fallback" is "{fallback}", which is no class of the {which}: a server of it would not start',
            spec.where("deploy.guards.fallback"),
            f"did you mean `{close[0]}`?" if close else f"it answers: {', '.join(classes)}",
        )


def _fallback(spec: Spec) -> str | None:
    guards = spec.deploy.guards
    return None if guards is None else guards.fallback


def _named(spec: Spec) -> Iterator[_Named]:
    deploy = spec.deploy
    for index, column in enumerate(deploy.requests.redact):
        yield _Named(f"deploy.requests.redact.{index}", column)
    if deploy.guards is None:
        return
    for index, column in enumerate(deploy.guards.coerce):
        yield _Named(f"deploy.guards.coerce.{index}", column)
    for at, check in enumerate(deploy.guards.checks):
        if check.use == "blocklist":
            for index, column in enumerate(check.params.get("columns", ())):
                yield _Named(f"deploy.guards.checks.{at}.params.columns.{index}", column, text=True)


def _newest(spec: Spec, store: Store) -> ModelVersion | None:
    """Return the newest version that a run made for the endpoint, whether it passed the gate or not."""
    made = store.ledger.latest("fit")
    found = read_value(made.outputs.get("model")) if made is not None else None
    return found if isinstance(found, ModelVersion) and found.name == spec.model_name else None


def _table(store: Store) -> Sequence[str]:
    """Return the columns of the newest table that a model was made from."""
    made = store.ledger.latest("features")
    found = read_value(made.outputs.get("table")) if made is not None else None
    return [column.name for column in found.columns] if isinstance(found, TableVersion) else ()


def _hint(column: str, known: Sequence[str], table: Sequence[str]) -> str:
    if column in table:
        return "the table has it, and that version was made without: take it out, or make one with `modelyard run`"
    close = near(column, known)
    return f"did you mean `{close[0]}`?" if close else f"it takes: {', '.join(known) or 'none'}"
