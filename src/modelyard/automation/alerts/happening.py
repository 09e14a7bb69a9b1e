"""One thing that somebody may want to know; `rules` says which there are."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.records import AlertKind, Urgency

__all__ = ["LISTED", "Facts", "Happening"]

# More things than so many are counted, not listed.
LISTED = 5

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that somebody may want to know.

    Attributes:
        on: What it is.
        urgency: `high` is sent in quiet hours too, and never gathered.
        key: Name of the trouble, the same each time it comes again. What begins with `run/` is over when a run
            succeeds, `drift/ENDPOINT` when a watch finds nothing, `guards/ENDPOINT` when the alarm goes off.
        at: When, seconds since 1970 UTC.
        what: One sentence without the project's name.
        cause: Sequence number of the event; 0 where the clock is the cause.
        facts: Label and text, in the order of reading.
        run: Id of the run.
        step: Name of the step.
        trace: Id that ties it to its fire, run and log lines.
        once: What makes it one and the same, where that is not the event.
    """

    on: AlertKind
    urgency: Urgency
    key: str
    at: float
    what: str
    cause: int = 0
    facts: Facts = ()
    run: str = ""
    step: str = ""
    trace: str = ""
    once: str = ""

    @property
    def identity(self) -> str:
        """What its alerts have their ids from."""
        return self.once or f"{self.cause}/{self.key}"
