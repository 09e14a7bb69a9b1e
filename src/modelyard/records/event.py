"""Events: the only thing that is ever written; everything else is read out of them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["Draft", "Event", "EventKind"]

EventKind = Literal[
    "run.started",
    "run.finished",
    "step.started",
    "step.finished",
    "step.cached",
    "step.retried",
    "step.failed",
    "step.skipped",
    "fire.queued",
    "fire.dropped",
    "trigger.seen",
    "trigger.paused",
    "trigger.resumed",
    "alert.queued",
    "alert.sent",
    "alert.failed",
    "alert.closed",
    "alert.acked",
    "alert.read",
    "daemon.started",
    "daemon.stopped",
    "alias.moved",
    "stages.declared",
    "model.approved",
    "model.unapproved",
    "guard.alarmed",
    "guard.calmed",
    "endpoint.killed",
    "endpoint.revived",
    "endpoint.loaded",
    "endpoint.unloaded",
    "ab.finished",
    "token.added",
    "token.revoked",
    "predict.finished",
    "watch.finished",
    "loadtest.finished",
    "runtimes.finished",
    "drill.finished",
    "verify.finished",
]


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An event that has not been written yet.

    Attributes:
        kind: What happened.
        run: Id of the run, if it belongs to one.
        step: Name of the step, if it belongs to one.
        actor: Who did it: `user:NAME`, `runner`, `server`.
        payload: Plain JSON, documented for each kind in `docs/reference/events.md`; no secret ever.
    """

    kind: EventKind
    run: str = ""
    step: str = ""
    actor: str = "runner"
    payload: dict[str, Any] = {}


class Event(Draft, frozen=True, kw_only=True):
    """A written event.

    Attributes:
        seq: 1, 2, 3, ... without a gap.
        time: Seconds since 1970 UTC.
        hash: SHA-256 over the hash before it and every field, so that no row can be changed alone.
    """

    seq: int
    time: float
    hash: str
