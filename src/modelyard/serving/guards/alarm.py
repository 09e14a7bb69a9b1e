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


class _Tally(Protocol):
    decided: Counter[tuple[str, str]]
    taken: int
    refused: int


class Counted(Protocol):
    """A version of the model that counts what it answers."""

    @property
    def rows(self) -> int:
        """Rows answered since its start."""
        ...

    @property
    def tally(self) -> _Tally:
        """What was decided on rows since its start."""
        ...


class Signal(NamedTuple):
    """The alarm goes on, or off.

    Attributes:
        on: Whether too many rows are refused or held back.
        share: Part of the rows that was.
        rows: Rows that were looked at.
        guards: Guard -> rows that it decided on; several may have decided on the same row.
    """

    on: bool
    share: float
    rows: int
    guards: dict[str, int]


class _Mark(NamedTuple):
    """How far the counters were at some time."""

    time: float
    rows: int
    taken: int
    guards: Counter[str]


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
        self._seen: dict[int, tuple[Counted, int, int, Counter[str]]] = {}
        self._rows = self._taken = 0
        self._guards: Counter[str] = Counter()
        self._marks: deque[_Mark] = deque()
        self.reset()

    def look(self, versions: Iterable[Counted]) -> None:
        """Compare the counters with those of a window ago.

        Args:
            versions: All that answer now.
        """
        self._count(versions)
        now, marks = self._clock(), self._marks
        mark = self._mark(now)
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
        share = (mark.taken - marks[0].taken) / rows if rows else 0.0
        on = rows >= _LEAST and share > self._alarm.share
        if on != self.on and (on or rows >= _LEAST):
            self.on = on
            self._ring(Signal(on, share, rows, dict(mark.guards - marks[0].guards)))

    def reset(self) -> None:
        """Begin anew: somebody has looked at it."""
        self.on = False
        self._marks.clear()
        self._marks.append(self._mark(self._clock()))

    def _mark(self, now: float) -> _Mark:
        return _Mark(now, self._rows, self._taken, self._guards.copy())

    def _count(self, versions: Iterable[Counted]) -> None:
        seen: dict[int, tuple[Counted, int, int, Counter[str]]] = {}
        for version in versions:
            tally, guards = version.tally, Counter[str]()
            # What was refused is counted first, so that the share is never above 1.
            taken, refused = tally.taken, tally.refused
            rows = version.rows + refused
            for (guard, did), count in list(tally.decided.items()):
                if did in _TAKEN:
                    guards[guard] += count
            _, rows_before, taken_before, guards_before = self._seen.get(id(version), (version, 0, 0, Counter[str]()))
            self._rows += rows - rows_before
            self._taken += taken - taken_before
            self._guards += guards - guards_before
            seen[id(version)] = (version, rows, taken, guards)
        self._seen = seen
