"""Which steps take much longer than they do as a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from modelyard._kit.text import seconds_text
from modelyard.automation.alerts.happening import Happening
from modelyard.records import Event, EventKind
from modelyard.store.base import Ledger

__all__ = ["STUCK_LEAST", "UnderWay", "stuck", "stuck_key"]

# A step is stuck when it has taken so many times what 95 of 100 of its earlier runs took, and never before STUCK_LEAST
# seconds. What has no history of _FEW runs is given _UNKNOWN seconds.
_STUCK_FACTOR = 3.0
STUCK_LEAST = 600.0
_UNKNOWN = 4 * 3600.0
_FEW = 3


class UnderWay:
    """The steps of a run that are under way, kept up to date with what is new.

    Attributes:
        run: Id of the run.
        running: Name of a step -> since when its attempt has been running, seconds since 1970 UTC.
        done: Steps that have succeeded.
    """

    # What begins or ends a step.
    KINDS: tuple[EventKind, ...] = ("step.started", "step.retried", "step.finished", "step.cached", "step.failed")

    def __init__(self, run: str) -> None:
        self.run = run
        self.running: dict[str, float] = {}
        self.done: set[str] = set()
        self._seen = 0

    def follow(self, ledger: Ledger) -> None:
        """Read what is new of the run."""
        for event in ledger.events(after=self._seen, run=self.run, kinds=self.KINDS):
            self.note(event)

    def note(self, event: Event) -> None:
        """Take one event of the run in."""
        self._seen = event.seq
        self.running.pop(event.step, None)
        if event.kind == "step.started":
            self.running[event.step] = event.time
        elif event.kind == "step.retried":
            # The wait before another attempt does not count.
            self.running[event.step] = event.time + event.payload["waits"]
        elif event.kind != "step.failed":
            self.done.add(event.step)


def stuck(steps: UnderWay, now: float, usual: Callable[[str], Sequence[float]]) -> Iterator[Happening]:
    """Yield the steps of a run under way that take much longer than they do as a rule.

    Args:
        steps: Those that are under way.
        now: Seconds since 1970 UTC.
        usual: Returns the seconds that a step took in earlier runs; asked only where a step takes long.
    """
    for name, since in steps.running.items():
        took = now - since
        if took < STUCK_LEAST:
            continue
        earlier = sorted(usual(name))
        typical = earlier[math.ceil(0.95 * len(earlier)) - 1] if len(earlier) >= _FEW else None
        if took <= max(STUCK_LEAST, _UNKNOWN if typical is None else _STUCK_FACTOR * typical):
            continue
        if typical is None:
            known = "it has run too seldom to say how long it takes"
        else:
            known = f"95 of 100 earlier runs took at most {seconds_text(typical)}"
        yield Happening(
            on="stuck",
            urgency="high",
            key=stuck_key(steps.run, name),
            at=now,
            what=f"{name} has been running for {seconds_text(took)}",
            facts=(
                ("usual", known),
                ("next step", "look at what it waits for; `modelyard cancel` ends the run"),
                ("run", steps.run),
            ),
            run=steps.run,
            step=name,
            once=stuck_key(steps.run, name),
        )


def stuck_key(run: str, step: str) -> str:
    """Return the key of a stuck step."""
    return f"run/stuck/{run}/{step}"
