"""Says so when more rows than usual are refused or held back, and when that is over."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from modelyard._kit.clock import Clock
from modelyard.serving.guards.policy import Alarm

__all__ = ["Counted", "Signal", "Watcher"]

# Of fewer rows no share can be told.
_LEAST = 50
# Decisions that take an answer from a caller.
_TAKEN = ("reject", "refuse", "quarantine", "fallback", "abstain")
_REFUSED = ("reject", "refuse")


class _Tally(Protocol):
    decided: Counter[tuple[str, str]]


class Counted(Protocol):
    """A version of the model that counts what it answers."""

    @property
    def rows(self) -> int:
        """Rows answered since its start."""
        ...

    @property
    def tally(self) -> _Tally:
        """Rows by guard and by what was done since its start, as `decided`."""
        ...


class Signal(NamedTuple):
    """The alarm goes on, or off.

    Attributes:
        on: Whether too many rows are refused or held back.
        share: Part of the rows that was.
        rows: Rows that were looked at.
        guards: Guard -> rows that it refused or held back among them.
    """

    on: bool
    share: float
    rows: int
    guards: dict[str, int]


class _Mark(NamedTuple):
    """How far the counters were at some time."""

    time: float
    rows: int
    taken: Counter[str]


class Watcher:
    """Looks at the counters from time to time; costs nothing in between.

    It goes off only when enough rows have said that things are well: silence says nothing.

    Args:
        alarm: Share and window.
        ring: Takes each change.
        clock: Source of the time.

    Attributes:
        on: Whether too many are refused or held back now.
    """

    def __init__(self, alarm: Alarm, ring: Callable[[Signal], None], *, clock: Clock = time.monotonic) -> None:
        self._alarm = alarm
        self._ring = ring
        self._clock = clock
        self.on = False
        # Version -> what it had counted at the last look: versions come and go.
        self._seen: dict[int, tuple[Counted, int, Counter[str]]] = {}
        self._rows = 0
        self._taken: Counter[str] = Counter()
        self._marks: deque[_Mark] = deque()
        self.reset()

    def look(self, versions: Iterable[Counted]) -> None:
        """Compare the counters with those of a window ago.

        Args:
            versions: All that answer now.
        """
        self._count(versions)
        now, marks = self._clock(), self._marks
        mark = _Mark(now, self._rows, self._taken.copy())
        # Of a quiet stretch both ends say all.
        if len(marks) > 1 and marks[-2].rows == marks[-1].rows == mark.rows and marks[-1].taken == mark.taken:
            marks[-1] = mark
        else:
            marks.append(mark)
        while len(marks) > 1 and marks[1].time <= now - self._alarm.window:
            if self.on and mark.rows - marks[1].rows < _LEAST:
                break
            marks.popleft()
        rows = mark.rows - marks[0].rows
        guards = mark.taken - marks[0].taken
        share = guards.total() / rows if rows else 0.0
        on = rows >= _LEAST and share > self._alarm.share
        if on != self.on and (on or rows >= _LEAST):
            self.on = on
            self._ring(Signal(on, share, rows, dict(guards)))

    def reset(self) -> None:
        """Begin anew: somebody has looked at it."""
        self.on = False
        self._marks.clear()
        self._marks.append(_Mark(self._clock(), self._rows, self._taken.copy()))

    def _count(self, versions: Iterable[Counted]) -> None:
        seen: dict[int, tuple[Counted, int, Counter[str]]] = {}
        for version in versions:
            rows, taken = version.rows, Counter[str]()
            for (guard, did), count in list(version.tally.decided.items()):
                if did in _TAKEN:
                    taken[guard] += count
                if did in _REFUSED:
                    rows += count
            _, rows_before, taken_before = self._seen.get(id(version), (version, 0, Counter[str]()))
            self._rows += rows - rows_before
            self._taken += taken - taken_before
            seen[id(version)] = (version, rows, taken)
        self._seen = seen
