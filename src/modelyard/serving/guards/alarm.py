"""Says so when more rows than usual are refused or held back."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from modelyard._kit.clock import Clock
from modelyard.serving.guards.policy import Alarm

__all__ = ["Watcher"]

# Of fewer rows no share can be told.
_LEAST = 50
# Decisions that take an answer from a caller.
_TAKEN = ("reject", "refuse", "quarantine", "fallback", "abstain")


class Watcher:
    """Looks at the counters from time to time; costs nothing in between.

    Args:
        alarm: Share and window.
        say: Takes the line.
        clock: Source of the time.

    Attributes:
        on: Whether too many are refused or held back now.
    """

    def __init__(self, alarm: Alarm, say: Callable[[str], None], *, clock: Clock = time.monotonic) -> None:
        self._alarm = alarm
        self._say = say
        self._clock = clock
        self._marks: deque[tuple[float, int, int]] = deque()
        self.on = False

    def look(self, answered: int, decided: Counter[tuple[str, str]]) -> None:
        """Compare the counters with those of a window ago.

        Args:
            answered: Rows answered since the start.
            decided: Rows by guard and by what was done since the start.
        """
        now = self._clock()
        taken = sum(count for (_, did), count in decided.items() if did in _TAKEN)
        refused = sum(count for (_, did), count in decided.items() if did in ("reject", "refuse"))
        self._marks.append((now, answered + refused, taken))
        while len(self._marks) > 1 and self._marks[1][0] <= now - self._alarm.window:
            self._marks.popleft()
        rows = self._marks[-1][1] - self._marks[0][1]
        share = (self._marks[-1][2] - self._marks[0][2]) / rows if rows else 0.0
        on = rows >= _LEAST and share > self._alarm.share
        if on and not self.on:
            self._say(f"guards: {share:.1%} of the last {rows:,} rows were refused or held back")
        elif self.on and not on:
            self._say("guards: as few rows as usual are refused or held back again")
        self.on = on
