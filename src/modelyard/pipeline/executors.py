"""Where steps run: in the runner's own process, or side by side in warm worker processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from modelyard._kit.hearing import Ear, sweep
from modelyard.pipeline.execute import Failure, Outcome, Task, execute
from modelyard.records import Step, Usage
from modelyard.store import Store

if TYPE_CHECKING:
    from modelyard.pipeline.admission import Admission, Place
    from modelyard.pipeline.pool import Pool

__all__ = ["Executor", "LocalExecutor"]

# Seconds for which `used` gives the same answer.
_FRESH = 0.2


class Executor(Protocol):
    """Runs tasks; the runner asks for room, submits, and waits."""

    def beside(self, task: Task) -> bool:
        """Say whether this task would run beside the runner, so that others can run meanwhile."""
        ...

    def room(self, task: Task) -> bool:
        """Say whether this task could start now."""
        ...

    def submit(self, task: Task) -> Outcome | None:
        """Start a task that there is room for: an outcome if it ran on the spot, none if it is under way."""
        ...

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        """Wait until a task under way has ended, there may be room again, or so many seconds; return what ended."""
        ...

    def used(self) -> Usage:
        """Return what the tasks under way have used until now."""
        ...

    def close(self) -> list[tuple[Task, Usage]]:
        """End every worker; return the tasks that were given up, with what they had used."""
        ...


class LocalExecutor:
    """Short steps in the runner's process, steps that want a process of their own in workers beside it.

    A step has a process of its own if it says so, or asks for memory, GPUs or a timeout: nothing else can be held to a
    limit. It starts once the machine has room for it among all that this user runs on it.

    Args:
        store: The project's store; workers open it by its root and address.
        workers: How many processes at most; as many as the machine has room for by default.
        functions: Verb -> function, for functions that only this process knows; these run here.
        grace: Seconds that a step which is being stopped has to tidy up, before it is killed.
        address: Where workers open the store, if not where it is (`scratch.handed_on`).
    """

    def __init__(
        self,
        store: Store,
        *,
        workers: int = 0,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        grace: float = 3.0,
        address: str = "",
    ) -> None:
        self._store = store
        self._address = address or store.address
        self._most = workers
        self._functions = dict(functions or {})
        self._grace = grace
        self._used = (0.0, Usage())
        # Made when the first step wants them: a run without such steps has no use for them.
        self._pool: Pool | None = None
        self._admission: Admission | None = None
        self._ear: Ear | None = None

    def beside(self, task: Task) -> bool:
        """Say whether this task would run in a process of its own."""
        step = task.step
        asked = step.resources
        own = asked.own_process or asked.memory or asked.gpus or step.timeout
        return bool(own) and not step.verb.startswith("__main__:")

    def room(self, task: Task) -> bool:
        """Say whether this task could start now."""
        if not self.beside(task):
            return True
        if self._pool is not None and self._most and self._pool.busy >= self._most:
            return False
        return self._admit().room(task)

    def submit(self, task: Task) -> Outcome | None:
        """Run a short task on the spot, hand another to a worker."""
        if not self.beside(task):
            ear = self._heard()
            ear.what = f"step {task.step.name}"
            try:
                outcome = execute(task, self._store, self._functions.get(task.step.verb))
            finally:
                ear.what = ""
            notes = _unheld(task.step)
            return msgspec.structs.replace(outcome, notes=notes) if notes else outcome
        place = self._admit().take(task)
        if isinstance(place, Failure):
            return Outcome(failure=place)
        worker = self._warm().give(task, place)
        if place.lease.devices:
            # If the runner is killed, nobody may have these GPUs before the last process of the step is gone.
            self._admit().tie(place, worker.guard)
        return None

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        """Wait until a worker has answered, or room that others had may be ours, at most so many seconds.

        A worker that died is a failed task. Where there is nothing to wait for, it returns at once.
        """
        if self._admission is None:
            return []
        admission, pool = self._admission, self._warm()
        if seconds != 0.0:
            for lease in admission.unused():
                pool.end_idle(lease.devices)
                admission.release(lease)
        until = None if seconds is None else time.monotonic() + seconds
        while pool.busy or admission.waiting:
            pause = None if until is None else max(0.0, until - time.monotonic())
            if admission.waiting:
                pause = admission.pause if pause is None else min(pause, admission.pause)
            ended = pool.collect(pause)
            for _, _, place in ended:
                self._take_back(place)
            if ended:
                return [(task, outcome) for task, outcome, _ in ended]
            if (seconds != 0.0 and admission.again()) or (until is not None and time.monotonic() >= until):
                break
        return []

    def used(self) -> Usage:
        """Return what the tasks under way have used until now."""
        if self._pool is None or not self._pool.busy:
            return Usage()
        now = time.monotonic()
        if now - self._used[0] >= _FRESH:
            self._used = now, self._pool.used()
        return self._used[1]

    def close(self) -> list[tuple[Task, Usage]]:
        """End the workers, busy ones gently first; what they had not answered is not recorded and runs again.

        Returns:
            The tasks that were under way, with what they had used.
        """
        try:
            return [] if self._pool is None else self._pool.close()
        finally:
            if self._ear is not None:
                self._ear.close()
            # Those of workers that had to be killed.
            sweep(self._store.root)
            if self._admission is not None:
                self._admission.close()

    def _heard(self) -> Ear:
        """Let the owner of this process look into steps that run in it."""
        if self._ear is None:
            self._ear = Ear(self._store.root, "")
        return self._ear

    def _take_back(self, place: Place) -> None:
        devices = place.lease.devices
        if devices:
            if self._admit().hand_on(place):
                return
            # A worker that is done may still hold memory on its GPUs: it goes first.
            self._warm().end_idle(devices)
        self._admit().release(place.lease)

    def _admit(self) -> Admission:
        if self._admission is None:
            from modelyard.pipeline.admission import Admission
            from modelyard.pipeline.leases import Leases
            from modelyard.pipeline.machine import machine

            here = machine()
            self._admission = Admission(here, Leases(here))
        return self._admission

    def _warm(self) -> Pool:
        if self._pool is None:
            from modelyard.pipeline.pool import Pool

            self._pool = Pool(self._store.root, grace=self._grace, store=self._address)
        return self._pool


def _unheld(step: Step) -> tuple[str, ...]:
    """Say what a step asks that cannot be held to in the runner's own process."""
    asked = step.resources
    limits = (("memory", asked.memory), ("GPUs", asked.gpus), ("a timeout", step.timeout))
    words = " and ".join(word for word, given in limits if given)
    why = "its function stands in the script that was started, which no other process can import"
    return (f"asked for {words} and ran in the runner's own process: {why}",) if words else ()
