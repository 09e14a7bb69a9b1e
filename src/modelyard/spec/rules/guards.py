"""What cannot stand in `deploy.guards`, `deploy.access` and `deploy.requests`.

What only the trained model can tell (its columns where the file does not list them, its classes, its profile) is looked
at when a server opens the bundle; of the columns `modelyard check` warns before (`spec.held`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelyard._kit.errors import ServeError, UserError, near
from modelyard.checks.metrics import METRICS
from modelyard.deploy.guards import Guards, OutputCheck
from modelyard.security.roles import ROLES, allowed
from modelyard.spec.declaration import Declaration
from modelyard.spec.functions import read_function
from modelyard.spec.outside import function_problems
from modelyard.spec.report import Finding
from modelyard.spec.rules.steps import tables_of

__all__ = ["guard_rules", "tasks_of"]

_AT = "deploy.guards"
_TASKS = frozenset(("binary", "multiclass", "regression"))
_COMMA = re.compile(r"(?<!\\),")
_MODEL = ("model.task", "model.metric", "model.positive")


def guard_rules(root: Path, *, files: bool) -> Callable[[Declaration], Iterator[Finding]]:
    """Return the rule of a project.

    Args:
        root: Folder of the project.
        files: Also look at the files that are named.
    """

    def rule(d: Declaration) -> Iterator[Finding]:
        yield from _shown(d)
        yield from _issuer(d)
        yield from _certificates(d)
        yield from _columns(d, "deploy.requests.redact", d.deploy.requests.redact)
        guards = d.deploy.guards
        if guards is None:
            return
        yield from _columns(d, f"{_AT}.coerce", guards.coerce)
        yield from _suits(d, guards)
        yield from _fallback(d, guards)
        for index, check in enumerate(guards.checks):
            yield from _check(f"{_AT}.checks.{index}", check, root, files=files)

    return rule


def _shown(d: Declaration) -> Iterator[Finding]:
    access = d.deploy.access
    asking = [role for role in ROLES if allowed(role, "infer") and (not access.roles or role in access.roles)]
    for role in access.show:
        at = f"deploy.access.show.{role}"
        if role not in ROLES:
            close = near(role, ROLES)
            hint = f"did you mean `{close[0]}`?" if close else "there is: " + ", ".join(ROLES)
            yield Finding(at, f'there is no role "{role}"', hint, code="spec-bad-value")
        elif role not in asking:
            message = f'"{role}" may not ask for predictions, so nothing of them is shown to it'
            yield Finding(at, message, "take it out; these may: " + ", ".join(asking), ("deploy.access.roles",))
        elif access.show[role] == "label" and tasks_of(d) == {"regression"}:
            message = '"label" is about classes, and the model answers numbers'
            yield Finding(at, message, "use `rounded(DIGITS)`", _MODEL)


def _issuer(d: Declaration) -> Iterator[Finding]:
    oidc = d.deploy.access.oidc
    if oidc is None:
        return
    # Few declare one, and loading what would ask it takes its time.
    from modelyard.security.jwt import check_issuer

    try:
        check_issuer(oidc.issuer)
    except UserError as error:
        yield Finding("deploy.access.oidc.issuer", error.problem.message, error.problem.hint, code="spec-bad-value")


def _certificates(d: Declaration) -> Iterator[Finding]:
    for subject in d.deploy.access.certificates:
        # As `serving.http.tls` writes them: KIND=VALUE each, and a comma within one behind a backslash.
        parts = _COMMA.split(subject)
        if all("=" in part for part in parts):
            continue
        meant = parts[0] if "=" in parts[0] else f"CN={parts[0]}"
        for part in parts[1:]:
            meant += f",{part}" if "=" in part else f"\\,{part}"
        message = f'"{subject}" is the subject of no certificate: a part of it has no "="'
        hint = f"write `{meant}`, if that is meant: a comma within a part has a backslash before it"
        yield Finding(f"deploy.access.certificates.{subject}", message, hint, code="spec-bad-value")


def _columns(d: Declaration, place: str, columns: Sequence[str]) -> Iterator[Finding]:
    """Look at names of inputs that stand in a list of the file."""
    if d.model is None:
        return
    outside = {d.model.target: "the target", **dict.fromkeys(d.model.drop, 'in "model.drop"')}
    tables = [d.data[name].columns for name in tables_of(d) if name in d.data]
    # A function of one's own may make columns of which the file knows nothing.
    whole = d.features is None and len(tables) == len(tables_of(d)) and all(tables)
    known = [column for columns in tables for column in columns if column not in outside]
    word = place.rpartition(".")[2]
    for index, column in enumerate(columns):
        at = f"{place}.{index}"
        if column in outside:
            message = f'"{column}" is {outside[column]}, and no input of the model'
            yield Finding(at, message, f"take it out of `{word}`", ("model.target", "model.drop"))
        elif whole and column not in known:
            close = near(column, known)
            hint = f"did you mean `{close[0]}`?" if close else "there is: " + ", ".join(known)
            yield Finding(at, f'"{word}" names "{column}", which is no column of the data', hint, ("data.*",))


def _suits(d: Declaration, guards: Guards) -> Iterator[Finding]:
    tasks = tasks_of(d)
    if guards.confidence is not None and tasks == {"regression"}:
        message = '"confidence" is about classes, and the model answers numbers'
        yield Finding(f"{_AT}.confidence", message, "take it out, or use `within`", _MODEL)
    within = guards.within
    if within is None:
        return
    if "regression" not in tasks:
        message = '"within" is about numbers, and the model answers classes'
        yield Finding(f"{_AT}.within", message, "take it out, or use `confidence`", _MODEL)
    elif within.low is None and within.high is None:
        message = '"within" has neither "low" nor "high"'
        yield Finding(f"{_AT}.within", message, "for example `low: 0`", (f"{_AT}.within.*",), "spec-missing-field")
    elif within.low is not None and within.high is not None and within.low > within.high:
        message = f'"within" begins at {within.low:g} and ends before it, at {within.high:g}'
        yield Finding(f"{_AT}.within.low", message, "write the smaller one as `low`", (f"{_AT}.within.high",))


def _fallback(d: Declaration, guards: Guards) -> Iterator[Finding]:
    at = f"{_AT}.fallback"
    if guards.fallback is None:
        for path, uses in _using(guards):
            if uses:
                message = "it answers the fallback, and none is declared"
                yield Finding(f"{_AT}.{path}", message, "add `fallback:` to `deploy.guards`", (at,))
        return
    if tasks_of(d) == {"regression"}:
        try:
            float(guards.fallback)
        except ValueError:
            message = f'the fallback "{guards.fallback}" is no number, and the model answers numbers'
            yield Finding(at, message, "give a number", _MODEL, "spec-bad-value")
        return
    classes = _classes(d)
    if classes and guards.fallback not in classes:
        close = near(guards.fallback, classes)
        hint = f"did you mean `{close[0]}`?" if close else "there is: " + ", ".join(classes)
        message = f'the fallback "{guards.fallback}" is none of the classes that a contract allows for the target'
        yield Finding(at, message, hint, ("model.target", "data.*"))


def _using(guards: Guards) -> Iterator[tuple[str, bool]]:
    yield "outlier", guards.outlier is not None and guards.outlier.do == "quarantine"
    yield "confidence", guards.confidence is not None and guards.confidence.otherwise == "fallback"
    yield "within", guards.within is not None and guards.within.do == "fallback"
    yield from ((f"checks.{index}", check.do == "fallback") for index, check in enumerate(guards.checks))


def _check(at: str, check: OutputCheck, root: Path, *, files: bool) -> Iterator[Finding]:
    # Few declare one, and loading what the server knows of them takes its time.
    from modelyard.serving.guards.plugins import named
    from modelyard.serving.guards.rules import BUILT_IN, built_in

    if ":" in check.use:
        yield from _own(at, check, root) if files else ()
    elif check.use in BUILT_IN:
        try:
            built_in(check.use, check.params)
        except ServeError as error:
            needs = (f"{at}.params.*",)
            yield Finding(f"{at}.params", error.problem.message, error.problem.hint, needs, "spec-bad-value")
    elif check.use not in (known := named()):
        close = near(check.use, known)
        hint = f"did you mean `{close[0]}`?" if close else f"there is: {', '.join(known)}; or name FILE.py:FUNCTION"
        yield Finding(f"{at}.use", f'there is no check "{check.use}" of answers', hint, code="spec-unknown-guard")


def _own(at: str, check: OutputCheck, root: Path) -> Iterator[Finding]:
    takes = ", ".join(["batch", *check.params])
    wrong = list(function_problems(check.use, root, takes))
    for code, message, hint in wrong:
        yield Finding(f"{at}.use", message, hint, code=code)
    taken = read_function(check.use, root) if not wrong else None
    if taken is None:
        return
    free = [*taken.nameless, *(name for name in taken.names if name not in check.params)]
    if not free and not taken.anything:
        message = f'"{check.use}" ({taken.place}) takes no batch'
        yield Finding(
            f"{at}.use", message, f"write `def {check.use.rpartition(':')[2]}({takes})`", code="spec-guard-parameter"
        )
    for name in check.params:
        if name not in taken.names and not taken.anything:
            close = near(name, taken.names[1:])
            hint = f"did you mean `{close[0]}`?" if close else f"it takes: {', '.join(taken.names[1:]) or 'nothing'}"
            message = f'"{check.use}" ({taken.place}) takes no "{name}"'
            yield Finding(f"{at}.params.{name}", message, hint, code="spec-guard-parameter")
    lacking = [name for name in (*taken.nameless, *taken.needed)[1:] if name not in check.params]
    for name in lacking:
        message = f'"{check.use}" ({taken.place}) needs "{name}"'
        yield Finding(f"{at}.use", message, "add it to `params`", (f"{at}.params.*",), "spec-guard-parameter")


def tasks_of(d: Declaration) -> frozenset[str]:
    """Return the kinds of problem that the model may have by what the file says."""
    if d.model is None:
        return _TASKS
    tasks = _TASKS if d.model.task == "auto" else frozenset((d.model.task,))
    if d.model.metric in METRICS:
        tasks &= frozenset(METRICS[d.model.metric].tasks)
    return tasks & {"binary"} if d.model.positive is not None else tasks


def _classes(d: Declaration) -> list[str]:
    """Return the classes that a contract allows for the target; none where no contract does."""
    from modelyard.inference.encode import as_text

    rules = [source.contract.get(d.model.target) for source in d.data.values()] if d.model is not None else []
    return [as_text(value) for rule in rules if rule is not None for value in rule.allowed]
