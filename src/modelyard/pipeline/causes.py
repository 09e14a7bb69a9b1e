"""What kind of error a failure is, and what likely caused it: from the error, and from what changed since it worked.

The kind comes from the name of the error that was raised first (what follows from it stands after it in the trace).
Errors that bad code and bad data both raise are told apart by history: if only one of the two changed since the step
last succeeded, it was that one.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from modelyard._kit.clock import as_text
from modelyard.pipeline.changes import Change, between
from modelyard.pipeline.execute import Failure
from modelyard.pipeline.keys import Key
from modelyard.pipeline.network import ASK
from modelyard.records import Run
from modelyard.store import Store

__all__ = ["Before", "Cause", "CauseKind", "before", "cause_of", "likely"]

CauseKind = Literal["network", "disk", "memory", "permission", "data", "code", "environment", "time", "check"]

# How many runs are looked through for one in which the step succeeded.
_BACK = 100

# Our own codes, by their beginning.
_CODES: tuple[tuple[str, CauseKind], ...] = (
    ("out-of-memory", "memory"),
    ("step-timeout", "time"),
    ("disk-full", "disk"),
    ("store-not-writable", "permission"),
    ("key-permissions", "permission"),
    ("check-failed", "check"),
    ("missing-extra", "environment"),
    ("worker-died", "environment"),
    ("data-source-unreadable", "permission"),
    ("data-", "data"),
    ("column-", "data"),
    ("model-too-few", "data"),
    ("function-", "code"),
    ("features-missing", "code"),
    ("step-network", "permission"),
    ("step-", "code"),
)
# What the text says beats the name of the error: an `OSError` may be anything.
_TEXTS: tuple[tuple[str, CauseKind], ...] = (
    (r"no space left on device|disk quota exceeded|errno 28\b|errno 122\b|input/output error|errno 5\b", "disk"),
    (r"read-only file system", "disk"),
    (r"cannot allocate memory|out of memory|unable to allocate|errno 12\b|bad_alloc", "memory"),
    (r"permission denied|access denied|accessdenied|unauthorized|forbidden|errno 13\b|errno 1\b", "permission"),
    (r"connection refused|connection reset|name or service not known|temporary failure in name resolution", "network"),
    (r"network is unreachable|no route to host|remote end closed connection|ssl: |max retries exceeded", "network"),
    (r"cannot open shared object file|undefined symbol|glibc|incompatible architecture", "environment"),
)
_NAMES: dict[str, CauseKind] = {
    **dict.fromkeys(
        (
            "BrokenPipeError",
            "ConnectionAbortedError",
            "ConnectionError",
            "ConnectionRefusedError",
            "ConnectionResetError",
            "ConnectError",
            "ConnectTimeout",
            "ClientConnectorError",
            "EndpointConnectionError",
            "HTTPError",
            "HTTPStatusError",
            "MaxRetryError",
            "NameResolutionError",
            "NewConnectionError",
            "OperationalError",
            "ReadTimeout",
            "RemoteDisconnected",
            "SSLError",
            "URLError",
            "gaierror",
            "herror",
        ),
        "network",
    ),
    **dict.fromkeys(("TimeoutError", "TimeoutExpired"), "time"),
    **dict.fromkeys(("MemoryError", "OutOfMemoryError"), "memory"),
    **dict.fromkeys(("PermissionError", "AccessDenied", "NoCredentialsError"), "permission"),
    **dict.fromkeys(("ImportError", "ModuleNotFoundError", "PackageNotFoundError"), "environment"),
    **dict.fromkeys(
        (
            "ColumnNotFoundError",
            "ComputeError",
            "DuplicateError",
            "FileNotFoundError",
            "InvalidOperationError",
            "JSONDecodeError",
            "KeyError",
            "NoDataError",
            "OutOfBoundsError",
            "SchemaError",
            "SchemaFieldNotFoundError",
            "ShapeError",
            "StringCacheMismatchError",
            "StructFieldNotFoundError",
            "UnicodeDecodeError",
            "ValueError",
            "ZeroDivisionError",
        ),
        "data",
    ),
    **dict.fromkeys(
        (
            "AssertionError",
            "AttributeError",
            "IndentationError",
            "IndexError",
            "NameError",
            "NotImplementedError",
            "RecursionError",
            "SyntaxError",
            "TabError",
            "TypeError",
            "UnboundLocalError",
        ),
        "code",
    ),
}
_SAYS: dict[CauseKind, str] = {
    "network": "a service over the network did not answer as it should",
    "disk": "the disk is full, broken or cannot be written",
    "memory": "there was not enough memory",
    "permission": "a right is missing",
    "data": "the data are not what the step can work with",
    "code": "the code of the step is wrong",
    "environment": "a library or something else of the machine is missing or broken",
    "time": "it took longer than it may",
    "check": "what was claimed does not hold",
}
_NEXT: dict[CauseKind, str] = {
    "network": "see whether the service can be reached from this machine; `retries` try again by themselves",
    "disk": "free space or mend the disk, then run again: finished steps are kept",
    "memory": "ask for more (`resources: {memory: ...}`), work in smaller parts, or take a larger machine",
    "permission": "give the user who runs this the right, or the address the credentials it wants",
    "data": "look at the rows with `modelyard show`, and mend the source or the step",
    "code": "correct the function, then `modelyard replay` runs just this step again on the same inputs",
    "environment": "install what is missing, or go back to the versions with which it worked",
    "time": "raise its `timeout`, give it more cores, or look at its log for what it waited for",
    "check": "see the evidence with `modelyard show CHECK`; `modelyard bisect` finds the run in which it began",
}
# What changed -> the kind of cause that it is.
_OF_CHANGE: dict[str, CauseKind] = {"data": "data", "code": "code", "environment": "environment"}
# Kinds that history may decide between, by what the error alone says.
_OPEN: dict[str, frozenset[str]] = {
    "data": frozenset({"data", "code", "environment"}),
    "code": frozenset({"data", "code", "environment"}),
    "environment": frozenset({"code", "environment"}),
}
_RAISED = re.compile(r"^(?:[\w.]+\.)?([A-Za-z_]\w*)(?:: |$)", re.MULTILINE)
_QUOTED = r"""["'`]([^"'`\n]{1,80})["'`]"""
_COLUMN = re.compile(rf"(?:column|field|KeyError:?|not found:)\s*{_QUOTED}|{_QUOTED} not found", re.IGNORECASE)


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """The newest earlier run in which the step succeeded.

    Attributes:
        run: Its id.
        time: When it began, seconds since 1970 UTC.
        made_of: Ingredient of the key -> digest, then.
        changes: What changed from that run to the failed one.
    """

    run: str
    time: float
    made_of: dict[str, str] = {}
    changes: tuple[Change, ...] = ()


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What likely caused a failure.

    Attributes:
        kind: Class of the error.
        says: What happened, and what changed since it worked.
        next: What to do.
        since: What changed since the step last succeeded, one sentence each.
        run: The run in which it last succeeded; empty if it never did.
    """

    kind: CauseKind
    says: str
    next: str
    since: tuple[str, ...] = ()
    run: str = ""


def likely(failure: Failure, made_of: dict[str, str], before: Before | None) -> Cause:
    """Return the likely cause of a failure.

    Args:
        failure: The failure.
        made_of: What the key of the failed step was made of; empty if it failed before that.
        before: When it last succeeded; none if it never did.
    """
    kind = _kind(failure)
    changes = before.changes if before is not None else ()
    kinds = {change.kind for change in changes} & _OPEN.get(kind, frozenset())
    if len(kinds) == 1:
        kind = _OF_CHANGE[kinds.pop()]
    says = _SAYS[kind]
    if kind in ("data", "code") and (column := _COLUMN.search(failure.message)):
        says += f" (`{column[1] or column[2]}`)"
    since: tuple[str, ...] = ()
    if before is None:
        says += "; the step has never succeeded"
    else:
        since = tuple(f"{_WORD[c.kind]}: {c.what}" for c in changes) or _ingredients(made_of, before.made_of)
        changed = f"since then {'; '.join(since)}" if since else "nothing that is recorded changed since then"
        says += f"; the same step succeeded in {before.run} ({as_text(before.time)}), {changed}"
    following = failure.hint if failure.hint and not _vague(failure) else _NEXT[kind]
    return Cause(kind=kind, says=says, next=following, since=since, run=before.run if before else "")


_WORD = {
    "data": "the data",
    "code": "the code",
    "parameters": "parameters",
    "environment": "the environment",
    "world": "outside",
}


def _ingredients(now: dict[str, str], then: dict[str, str]) -> tuple[str, ...]:
    if not now or now == then:
        return ()
    return (Key("", now).explain(then),)


def _vague(failure: Failure) -> bool:
    """Say whether the hint of a failure fits any error of a user's function."""
    return failure.code == "step-failed" and ASK not in failure.hint


def _kind(failure: Failure) -> CauseKind:
    names = _RAISED.findall(failure.trace)
    text = f"{failure.message}\n{failure.trace.rpartition('Traceback')[2]}".lower()
    wrapped = failure.code in ("step-failed", "features-failed", "notebook-failed")
    if not wrapped:
        for begin, kind in _CODES:
            if failure.code.startswith(begin):
                return kind
    for pattern, kind in _TEXTS:
        if re.search(pattern, text):
            return kind
    # The first error of the trace is the one that the others follow from.
    for name in names:
        if name in _NAMES:
            return _NAMES[name]
    raised = re.search(r"raised (\w+)", failure.message)
    if raised and raised[1] in _NAMES:
        return _NAMES[raised[1]]
    return "code"


def before(store: Store, run: Run, step: str) -> Before | None:
    """Return the newest run before `run` in which the step succeeded, and what changed since; none if there is none."""
    for listed in store.ledger.runs(before=run.id, limit=_BACK):
        if listed.project != run.project:
            continue
        old = store.ledger.run(listed.id)
        found = (
            next((s for s in old.steps if s.name == step and s.status in ("succeeded", "cached")), None)
            if old
            else None
        )
        if old is not None and found is not None:
            changes = tuple(between(old, run, store, step))
            return Before(run=old.id, time=old.started, made_of=found.made_of, changes=changes)
    return None


def cause_of(store: Store, run: Run, step: str) -> Cause | None:
    """Return the likely cause of the failure of a step in a run; none if it did not fail."""
    found = next((s for s in run.steps if s.name == step and s.status == "failed"), None)
    if found is None:
        return None
    failure = msgspec.convert(found.error, Failure)
    return likely(failure, found.made_of, before(store, run, step))
