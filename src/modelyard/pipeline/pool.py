"""The workers of one runner: which of them does which task, and what came of it."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from pathlib import Path

import msgspec

from modelyard._kit.text import seconds_text
from modelyard.pipeline.admission import Place
from modelyard.pipeline.execute import Failure, Outcome, Task
from modelyard.pipeline.limits import Cages, out_of_memory, system_kills
from modelyard.pipeline.machine import cores
from modelyard.pipeline.network import has_network
from modelyard.pipeline.workers import Worker
from modelyard.records import Step, Usage

__all__ = ["Pool"]

# A worker may do a step with a memory limit if it holds at most this part of it from earlier steps.
_ROOM_INSIDE = 0.5
# Seconds that workers may take to end beyond their grace.
_LAST_WAIT = 2.0


class Pool:
    """Warm worker processes.

    Args:
        root: Folder of the project.
        grace: Seconds between SIGTERM and SIGKILL.
        cages: Where their control groups come from.
        store: Address of the project's store; left out, it is the one that is found from here.
    """

    def __init__(self, root: Path, *, grace: float, cages: Cages | None = None, store: str = "") -> None:
        self._root = root
        self._store = store
        self._grace = grace
        self._cages = cages or Cages()
        self._workers: list[Worker] = []
        self._places: dict[Worker, Place] = {}
        self._poll = select.poll()
        self._by_fd: dict[int, Worker] = {}
        self._system_kills = system_kills()

    @property
    def busy(self) -> int:
        """How many tasks are under way."""
        return len(self._places)

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All of them, the oldest first."""
        return tuple(self._workers)

    def give(self, task: Task, place: Place) -> Worker:
        """Hand a task to a free worker that suits it, or to a new one, and return that."""
        step = task.step
        while True:
            worker = self._suitable(step, place)
            if worker is None:
                # One that had these GPUs before and does not suit may still hold memory there.
                self.end_idle(place.lease.devices)
                worker = self._start(place, network=has_network(step))
            try:
                worker.give(task, limit=step.resources.memory, timeout=step.timeout, grace=self._grace)
            except OSError:
                self._retire(worker)  # it died just now; another takes its place
            else:
                self._places[worker] = place
                return worker

    def collect(self, seconds: float | None) -> list[tuple[Task, Outcome, Place]]:
        """Return what has ended, waiting for the first so many seconds at most; none: as long as it takes."""
        ended: list[tuple[Task, Outcome, Place]] = []
        for fd, _ in self._poll.poll(None if seconds is None else max(0, round(seconds * 1000))):
            worker = self._by_fd.get(fd)
            heard = None if worker is None else self._hear(worker, fd)
            if worker is not None and heard is not None:
                task, outcome = heard
                place = self._places.pop(worker)
                ended.append((task, _complete(outcome, place), place))
        return ended

    def used(self) -> Usage:
        """Return what the tasks under way have used."""
        return sum(map(self._used, self._places), Usage())

    def _used(self, worker: Worker) -> Usage:
        gpu_seconds = worker.seconds * len(self._places[worker].lease.devices)
        return msgspec.structs.replace(worker.used(), gpu_seconds=gpu_seconds)

    def end_idle(self, devices: tuple[str, ...]) -> None:
        """End the idle workers that see any of these GPUs: they may hold memory there."""
        for worker in self.workers:
            if worker not in self._places and set(worker.devices or ()) & set(devices):
                self._retire(worker)

    def close(self) -> list[tuple[Task, Usage]]:
        """End all, those that are busy gently first; return their tasks, with what they had used."""
        # A second Ctrl-C only ends the patience: what the first one began is done to its end.
        with contextlib.suppress(KeyboardInterrupt):
            for worker in self._places:
                worker.ask_to_stop()
            until = time.monotonic() + self._grace + _LAST_WAIT
            for worker in self._places:
                worker.gone(until - time.monotonic())
        for worker in self._workers:
            worker.kill()
        cut = [(worker.task, self._used(worker)) for worker in self._places if worker.task]
        for worker in self.workers:
            self._retire(worker)
        self._places.clear()
        return cut

    def _suitable(self, step: Step, place: Place) -> Worker | None:
        """Return a free worker that suits a step, and see to it that there is never a crowd of idle ones."""
        free = []
        for worker in self.workers:
            if worker in self._places:
                continue
            if worker.gone(0):
                self._retire(worker)  # it died while it had nothing to do
            else:
                free.append(worker)
        memory = step.resources.memory
        for worker in free:
            alike = worker.threads == place.threads and worker.devices == place.devices
            fits = alike and worker.network == has_network(step)
            if fits and (not memory or worker.resident() <= memory * _ROOM_INSIDE):
                # Those that nobody has use for gather at the front.
                self._workers.remove(worker)
                self._workers.append(worker)
                return worker
        if len(free) >= cores():
            self._retire(free[0])
        return None

    def _start(self, place: Place, *, network: bool) -> Worker:
        worker = Worker(
            self._root,
            threads=place.threads,
            devices=place.devices,
            cage=self._cages.make(),
            network=network,
            store=self._store,
        )
        self._workers.append(worker)
        for fd in worker.fds:
            self._by_fd[fd] = worker
            self._poll.register(fd, select.POLLIN)
        return worker

    def _hear(self, worker: Worker, fd: int) -> tuple[Task, Outcome] | None:
        """Take in an answer, or the end of a worker."""
        task = worker.task
        if fd == worker.life:
            return self._ended(worker)
        outcome = None if task is None else worker.take()
        if task is None or outcome is None:
            # It is ending; what it started may take a moment longer.
            self._forget(fd)
            return None
        if outcome.failure is not None and worker.starved():
            # The kernel killed something that the step had started.
            outcome = msgspec.structs.replace(outcome, failure=out_of_memory(task.step, before=outcome.failure))
        return task, outcome

    def _ended(self, worker: Worker) -> tuple[Task, Outcome] | None:
        """Take in that nothing of a worker is left, and say why if it had a task."""
        task, cause, seconds, usage = worker.task, worker.cause, worker.seconds, worker.used()
        starved = cause == "memory" or worker.starved()
        log = worker.last_lines()
        status = self._retire(worker)
        if task is None:
            return None
        if status == -signal.SIGKILL and not cause and not worker.caged:
            # Nobody counted what was killed in this worker: the counter of the whole system has to do.
            before, self._system_kills = self._system_kills, system_kills()
            starved = self._system_kills > before
        failure = _why(task.step, cause, status, usage.peak_bytes if starved else None)
        return task, Outcome(failure=failure, seconds=seconds, cpu_seconds=usage.cpu_seconds, usage=usage, log=log)

    def _retire(self, worker: Worker) -> int:
        self._workers.remove(worker)
        for fd in worker.fds:
            self._forget(fd)
        return worker.end()

    def _forget(self, fd: int) -> None:
        if self._by_fd.pop(fd, None) is not None:
            self._poll.unregister(fd)


def _complete(outcome: Outcome, place: Place) -> Outcome:
    """Add to an outcome what only the runner knows: its GPUs, and what it did not get."""
    if not (place.notes or place.lease.devices):
        return outcome
    gpu_seconds = outcome.seconds * len(place.lease.devices)
    usage = msgspec.structs.replace(outcome.usage, gpu_seconds=gpu_seconds)
    return msgspec.structs.replace(outcome, usage=usage, notes=(*place.notes, *outcome.notes))


def _why(step: Step, cause: str, status: int, reached: int | None) -> Failure:
    """Say why a worker ended before it answered.

    Args:
        step: What it did.
        cause: Why its guard ended it.
        status: Its exit status, negative for a signal.
        reached: Bytes it held if that was too much.
    """
    if reached is not None:
        return out_of_memory(step, reached=reached)
    if cause == "timeout":
        return Failure(
            code="step-timeout",
            message=f"step `{step.name}` had not ended after {seconds_text(step.timeout)}, its timeout; it was stopped",
            hint="raise its `timeout`, or look at its log for what it waited for",
        )
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
    hint = "somebody killed it, or the system did" if status == -signal.SIGKILL else ""
    return Failure(code="worker-died", message=f"the process of step `{step.name}` {how}", hint=hint)
