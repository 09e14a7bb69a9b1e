"""Which steps take much longer than they do as a rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from modelyard._kit.text import seconds_text
from modelyard.automation.alerts.rules import Happening
from modelyard.records import Run

__all__ = ["STUCK_LEAST", "stuck", "stuck_key"]

# A step is stuck when it has taken so many times what 95 of 100 of its earlier runs took, and never before STUCK_LEAST
# seconds. What has no history of _FEW runs is given _UNKNOWN seconds.
_STUCK_FACTOR = 3.0
STUCK_LEAST = 600.0
_UNKNOWN = 4 * 3600.0
_FEW = 3


def stuck(run: Run, now: float, usual: Callable[[str], Sequence[float]]) -> Iterator[Happening]:
    """Yield the steps of a run under way that take much longer than they do as a rule.

    Args:
        run: The run.
        now: Seconds since 1970 UTC.
        usual: Returns the seconds that a step took in earlier runs; asked only where a step takes long.
    """
    for step in run.steps:
        waits = step.attempts[-1].waits if step.attempts and step.attempts[-1].time == step.started else 0.0
        took = now - step.started - waits
        if step.status != "running" or took < STUCK_LEAST:
            continue
        earlier = sorted(usual(step.name))
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
            key=stuck_key(run.id, step.name),
            at=now,
            what=f"{step.name} has been running for {seconds_text(took)}",
            facts=(
                ("usual", known),
                ("next step", f"look at what it waits for; `modelyard show {run.id}` shows it, Ctrl-C ends it"),
                ("run", run.id),
            ),
            run=run.id,
            step=step.name,
            trace=run.trace,
            once=stuck_key(run.id, step.name),
        )


def stuck_key(run: str, step: str) -> str:
    """Return the key of a stuck step."""
    return f"run/stuck/{run}/{step}"
