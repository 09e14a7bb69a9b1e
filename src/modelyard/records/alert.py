"""An alert: one message to one target, from the moment it was written down until it was handed over."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelyard.records.event import Event

__all__ = ["Alert", "AlertKind", "AlertState", "Urgency", "alert_of"]

# What an alert is about. `test` is sent by a person who tries a target, and stands in no ledger.
AlertKind = Literal[
    "start",
    "stage",
    "success",
    "failure",
    "stuck",
    "stale",
    "budget",
    "drift",
    "guards",
    "anomaly",
    "recovered",
    "test",
]
Urgency = Literal["low", "normal", "high"]
AlertState = Literal["waiting", "sent", "failed"]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One message to one target, folded from its events.

    Attributes:
        id: Equal for the same cause and target, so that it is written down once and a receiver can drop doubles.
        target: Name of the target; never its address.
        on: What it is about.
        urgency: `low` and `normal` may wait for the end of quiet hours or for a digest, `high` never does.
        key: Name of the trouble, the same each time it comes again; tells what is over, too.
        cause: Sequence number of the event that it is about; 0 where the clock is the cause.
        at: When that was, seconds since 1970 UTC.
        due: When it may be sent.
        digest: Whether it may share a message with others.
        title: One line.
        text: The message.
        facts: Label and text of each thing that is known, in the order of reading.
        escalates: Id of the alert that nobody acknowledged; empty for any other.
        run: Id of the run, if it belongs to one.
        step: Name of the step, if it belongs to one.
        trace: Id that ties it to its fire, run and log lines.
        seq: Sequence number of the event that wrote it down.
        queued: When it was written down.
        state: `waiting` to be sent, `sent`, or `failed` for good.
        attempt: How often it was tried in vain.
        next: When it is tried again; 0 before the first attempt.
        ended: When it was sent or given up.
        error: Why the newest attempt failed.
        acked: Who has acknowledged it; empty: nobody.
        open: Whether its trouble is not over yet.
    """

    id: str
    target: str
    on: AlertKind
    urgency: Urgency
    key: str
    cause: int
    at: float
    due: float
    title: str
    text: str
    digest: bool = False
    facts: tuple[tuple[str, str], ...] = ()
    escalates: str = ""
    run: str = ""
    step: str = ""
    trace: str = ""
    seq: int = 0
    queued: float = 0.0
    state: AlertState = "waiting"
    attempt: int = 0
    next: float = 0.0
    ended: float = 0.0
    error: str = ""
    acked: str = ""
    open: bool = False


def alert_of(event: Event, **standing: Any) -> Alert:
    """Return an alert as its `alert.queued` event tells it.

    Args:
        event: The event.
        standing: How it stands now: `state`, `attempt`, `next`, `ended`, `error`, `acked` and `open`.
    """
    written = {"run": event.run, "step": event.step, "seq": event.seq, "queued": event.time}
    return msgspec.convert({**event.payload, **written, **standing}, Alert)
