"""Alerts as rows: what was told to whom, what waits, and what could not be handed over."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.records import Alert
from modelyard.security.redact import redact

__all__ = ["AlertRow", "alert_row"]


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One message to one target.

    Attributes:
        id: Its id.
        target: Name of the target; never its address.
        on: What it is about: `failure`, `stale`, `budget`, ...
        urgency: `low`, `normal` or `high`.
        state: `waiting`, `sent` or `failed`.
        title: One line.
        at: When that was what it is about, seconds since 1970 UTC.
        due: When it may be sent.
        next: When it is tried again; 0 before the first attempt.
        ended: When it was sent or given up.
        attempt: How often it was tried in vain.
        error: Why the newest attempt failed.
        acked: Who has acknowledged it; empty: nobody.
        open: Whether its trouble is not over yet.
        run: Id of the run; empty if it belongs to none.
    """

    id: str
    target: str
    on: str
    urgency: str
    state: str
    title: str
    at: float
    due: float
    next: float
    ended: float
    attempt: int
    error: str
    acked: str
    open: bool
    run: str


def alert_row(alert: Alert) -> AlertRow:
    """Return an alert as a row."""
    return AlertRow(
        id=alert.id,
        target=alert.target,
        on=alert.on,
        urgency=alert.urgency,
        state=alert.state,
        title=redact(alert.title),
        at=alert.at,
        due=alert.due,
        next=alert.next,
        ended=alert.ended,
        attempt=alert.attempt,
        error=redact(alert.error),
        acked=alert.acked,
        open=alert.open,
        run=alert.run,
    )
