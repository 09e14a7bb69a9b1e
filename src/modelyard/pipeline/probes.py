"""Look at the world outside before a step: its files, an alias that a person may have moved."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from modelyard.pipeline.code import find, version_of
from modelyard.records import ModelVersion, Step, plain, read_value
from modelyard.store import Store

__all__ = ["Context", "alias_now", "aliases_now", "comparator", "contracts_now", "probe", "still_champion"]

# Entries of a probe's answer that the step gets but that do not count in its key.
UNKEYED = "unkeyed"


@dataclass(frozen=True, slots=True)
class Context:
    """What a probe may look at.

    Attributes:
        root: Folder of the project.
        store: Its store, for reading.
        step: Name of the step.
        inputs: Parameter -> plain JSON of the step's inputs.
    """

    root: Path
    store: Store
    step: str
    inputs: dict[str, Any] = field(default_factory=dict)


def probe(step: Step, inputs: dict[str, Any], store: Store) -> tuple[Any, Any]:
    """Run a step's probe.

    Returns:
        What the step gets as `state`, and the part of it that counts in the key.
    """
    if not step.probe:
        return None, None
    look: Callable[..., Any] = find(step.probe)
    state = look(Context(store.root, store, step.name, inputs), **step.params)
    keyed = {k: v for k, v in state.items() if k != UNKEYED} if isinstance(state, dict) else state
    return state, keyed


def comparator(ctx: Context, *, endpoint: str, **_: Any) -> dict[str, Any]:
    """See which model a new one has to be compared with: the champion, or the one it replaced.

    A model that is the champion already is compared with its predecessor, so that a run with nothing changed finds
    the comparison it made before.
    """
    model = read_value(ctx.inputs["model"])
    moves = [d for d in ctx.store.ledger.aliases(endpoint) if d.alias == "champion"]
    other: ModelVersion | None = None
    if moves:
        now = moves[-1]
        other = now.model
        if now.model.digest == model.digest:
            other = next((d.model for d in reversed(moves) if d.model.digest == now.previous), None)
    return {"champion": plain(other) if other else None}


def still_champion(ctx: Context, *, endpoint: str, **_: Any) -> dict[str, Any]:
    """See whether the new model has taken the place of the one that it is compared with.

    A third model that a person has pointed the champion at meanwhile is no reason to pass the new one. It is not part
    of the key: what was compared stays so.
    """
    candidate = read_value(ctx.inputs.get("candidate"))
    now = ctx.store.ledger.alias(endpoint, "champion")
    replaced = candidate is not None and now is not None and now.model.digest == candidate.digest
    return {UNKEYED: {"replaced": replaced}}


def alias_now(ctx: Context, *, endpoint: str, alias: str = "champion", **_: Any) -> dict[str, Any]:
    """See where an alias points, and which model the new one replaces there.

    Where it points now is not part of the key: a person's rollback is not undone by a rerun. What the runs made of it
    is: a model that was promoted once, then replaced by another run, and comes back, is promoted again.
    """
    now = ctx.store.ledger.alias(endpoint, alias)
    return {"replaces": _replaced(ctx, endpoint, (alias,)), UNKEYED: plain(now) if now else None}


def aliases_now(ctx: Context, *, endpoint: str, **_: Any) -> dict[str, Any]:
    """See where champion and challenger point, and which model of the runs the new one comes after.

    What becomes of a trial is not part of the key: a challenger that was taken back is not named again by a rerun.
    """
    both = ("champion", "challenger")
    now = {alias: ctx.store.ledger.alias(endpoint, alias) for alias in both}
    return {
        "replaces": _replaced(ctx, endpoint, both),
        UNKEYED: {alias: plain(to) if to else None for alias, to in now.items()},
    }


def contracts_now(ctx: Context, *, files: Collection[str], policy: str, **_: Any) -> dict[str, Any]:
    """See what consumers rely on, and the code of the project that looks at answers.

    Raises:
        SpecError: A contract file cannot be read.
    """
    from modelyard.serving.guards.policy import read_policy
    from modelyard.spec.consumers import contract_files, load_contract

    names = dict.fromkeys(name for pattern in files for name in contract_files(pattern, ctx.root))
    guards = read_policy(policy).guards
    own = sorted({check.use for check in guards.checks if ":" in check.use}) if guards is not None else []
    return {
        "contracts": [msgspec.to_builtins(load_contract(name, ctx.root)) for name in names],
        "guards": {use: version_of(str(Path(use).expanduser()), ctx.root) for use in own},
        UNKEYED: {"root": str(ctx.root)},
    }


def _replaced(ctx: Context, endpoint: str, aliases: Collection[str]) -> str:
    """Return the identity of the last other model that a run has pointed one of the aliases at; empty if none."""
    model = read_value(ctx.inputs["model"])
    moves = [
        deployment.model.identity
        for event in ctx.store.ledger.events(kinds=("alias.moved",))
        if event.run
        and (deployment := read_value(event.payload["deployment"])).endpoint == endpoint
        and deployment.alias in aliases
    ]
    # A rerun with nothing changed has to see what the run before it saw.
    while moves and moves[-1] == model.identity:
        moves.pop()
    return moves[-1] if moves else ""
