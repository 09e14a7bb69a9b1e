"""Keep the steps of a scheduled run out of the windows to avoid, where it takes longer than it was expected to."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.times import Windows, said, windows, zone
from modelyard._kit.times.room import rooms
from modelyard.pipeline.execute import Outcome, Task
from modelyard.pipeline.executors import Executor, LocalExecutor
from modelyard.records import Fire, Usage
from modelyard.spec import Spec
from modelyard.spec.sections.schedule import names_of
from modelyard.store import Store

__all__ = ["WindowedExecutor", "executor_for"]

_log = logging.getLogger("modelyard.schedule")
# Every window that comes at all comes within so many seconds.
_HORIZON = 9 * 86_400.0
# Seconds between two looks at the clock, which may be set meanwhile.
_LOOK = 20.0


class WindowedExecutor:
    """Another executor that has no room for a step which would be at work in a window to avoid.

    A step is expected to take what it took last; one that never ran, or that is longer than any stretch between two
    windows, only has to begin outside them.

    Args:
        inner: Where the steps run.
        avoid: The windows.
        store: The project's store.
        clock: Source of the time.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        inner: Executor,
        avoid: Windows,
        store: Store,
        *,
        clock: Clock = system_clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._avoid = avoid
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._expected: dict[str, float] = {}
        # Steps that were held since the last wait -> until when.
        self._held: dict[str, float] = {}
        self._told: set[str] = set()
        self._begun: set[str] = set()

    def beside(self, task: Task) -> bool:
        """Say whether others can run meanwhile: of a task that is held, too, so that those behind it are looked at."""
        held = task.step.name not in self._begun and self._opens(task.step.name) > self._clock()
        return held or self._inner.beside(task)

    def room(self, task: Task) -> bool:
        """Say whether this task could start now and end before a window begins."""
        name = task.step.name
        opens = self._opens(name)
        if opens <= self._clock():
            return self._inner.room(task)
        self._held[name] = opens
        if name not in self._told:
            self._told.add(name)
            _log.warning("%s waits until %s: `avoid`", name, said(opens, self._avoid.zone))
        return False

    def _opens(self, name: str) -> float:
        if name not in self._expected:
            latest = self._store.ledger.latest(name)
            self._expected[name] = latest.seconds if latest else 0.0
        return begins(self._avoid, self._clock(), self._expected[name])

    def submit(self, task: Task) -> Outcome | None:
        """See `Executor.submit`."""
        self._begun.add(task.step.name)
        return self._inner.submit(task)

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        """Wait until a task has ended, a held one may begin, or so many seconds have passed."""
        held, self._held = self._held, {}
        if not held:
            return self._inner.wait(seconds)
        left = max(0.0, min(_LOOK, min(held.values()) - self._clock()))
        left = left if seconds is None else min(left, seconds)
        until = time.monotonic() + left
        ended = self._inner.wait(left)
        if not ended and (rest := until - time.monotonic()) > 0:
            # Nothing is under way, so the executor had nothing to wait for.
            self._sleep(rest)
        return ended

    def used(self) -> Usage:
        """See `Executor.used`."""
        return self._inner.used()

    def close(self) -> list[tuple[Task, Usage]]:
        """See `Executor.close`."""
        return self._inner.close()


def begins(avoid: Windows, now: float, takes: float) -> float:
    """Return the first moment from now on at which something that takes so long may begin."""
    if found := rooms(avoid, max(takes, 1.0), now, now + _HORIZON):
        return found[0][0]
    return avoid.next_change(now) if avoid.contains(now) else now


def executor_for(spec: Spec, store: Store, fire: Fire) -> WindowedExecutor | None:
    """Return the executor for the run of a fire; none where its schedule has no windows to avoid."""
    if fire.kind != "schedule":
        return None
    for section, name in zip(spec.schedule, names_of(spec.schedule), strict=True):
        if name == fire.trigger and section.avoid:
            return WindowedExecutor(LocalExecutor(store), windows(section.avoid, zone(section.zone)), store)
    return None
