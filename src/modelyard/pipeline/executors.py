"""Where steps run: in the runner's own process, or side by side in warm worker processes."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from modelyard._kit.text import seconds_text
from modelyard.pipeline.execute import Failure, Outcome, Task, execute
from modelyard.pipeline.limits import Cages, out_of_memory, system_kills
from modelyard.pipeline.machine import cores
from modelyard.records import Step, Usage
from modelyard.store import Store

if TYPE_CHECKING:
    from modelyard.pipeline.workers import Worker

__all__ = ["Executor", "LocalExecutor"]

# A worker may do a step with a memory limit if it holds at most this part of it from earlier steps.
_ROOM_INSIDE = 0.5
# Seconds for which `used` gives the same answer.
_FRESH = 0.2
# Seconds that workers may take to end beyond their grace.
_LAST_WAIT = 2.0


class Executor(Protocol):
    """Runs tasks; the runner asks for room, submits, and waits."""

    def room(self, task: Task) -> bool:
        """Say whether this task could start now."""
        ...

    def submit(self, task: Task) -> Outcome | None:
        """Start a task: an outcome if it ran on the spot, none if it is under way."""
        ...

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        """Wait until a task under way has ended, there may be room again, or so many seconds; return what ended."""
        ...

    def used(self) -> Usage:
        """Return what the tasks under way have used until now."""
        ...

    def close(self) -> None:
        """End every worker; tasks under way are given up."""
        ...


class LocalExecutor:
    """Short steps in the runner's process, steps that want a process of their own in workers beside it.

    Args:
        store: The project's store; workers open it by its root.
        workers: How many processes at most; the cores of the machine by default.
        functions: Verb -> function, for functions that only this process knows; these run here.
        grace: Seconds that a step which is being stopped has to tidy up, before it is killed.
    """

    def __init__(
        self,
        store: Store,
        *,
        workers: int = 0,
        functions: Mapping[str, Callable[..., Any]] | None = None,
        grace: float = 5.0,
    ) -> None:
        self._store = store
        self._most = workers or cores()
        self._functions = dict(functions or {})
        self._grace = grace
        self._workers: list[Worker] = []
        self._poll = select.poll()
        self._by_fd: dict[int, Worker] = {}
        self._cages = Cages()
        self._busy = 0
        self._used = (0.0, Usage())
        self._system_kills = 0

    def room(self, task: Task) -> bool:
        """Say whether this task could start now."""
        return self._here(task.step) or self._busy < self._most

    def submit(self, task: Task) -> Outcome | None:
        """Run a short task on the spot, hand another to a free worker."""
        if self._here(task.step):
            return execute(task, self._store, self._functions.get(task.step.verb))
        step = task.step
        while True:
            worker = self._worker(step)
            try:
                worker.give(task, limit=step.resources.memory, timeout=step.timeout, grace=self._grace)
            except OSError:
                self._retire(worker)  # it died just now; another takes its place
            else:
                self._busy += 1
                return None

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        """Wait for a worker to answer, at most so many seconds; a worker that died is a failed task."""
        until = None if seconds is None else time.monotonic() + seconds
        ended: list[tuple[Task, Outcome]] = []
        while self._busy and not ended:
            left = None if until is None else max(0.0, until - time.monotonic())
            for fd, _ in self._poll.poll(None if left is None else round(left * 1000)):
                if (worker := self._by_fd.get(fd)) is not None:
                    ended += self._hear(worker, fd)
            if left == 0.0:
                break
        self._busy -= len(ended)
        return ended

    def used(self) -> Usage:
        """Return what the tasks under way have used until now."""
        if not self._busy:
            return Usage()
        now = time.monotonic()
        if now - self._used[0] >= _FRESH:
            self._used = now, sum((w.used() for w in self._workers if w.task), Usage())
        return self._used[1]

    def close(self) -> None:
        """End the workers, busy ones gently first; what they had not answered is not recorded and runs again."""
        busy = [worker for worker in self._workers if worker.task is not None]
        try:
            for worker in busy:
                worker.ask_to_stop()
            until = time.monotonic() + self._grace + _LAST_WAIT
            for worker in busy:
                worker.gone(until - time.monotonic())
        finally:
            # A second Ctrl-C ends the patience: nothing survives this.
            for worker in self._workers:
                worker.kill()
            for worker in [*self._workers]:
                self._retire(worker)
            self._busy = 0

    def _here(self, step: Step) -> bool:
        asked = step.resources
        own = asked.own_process or asked.memory or asked.gpus or step.timeout
        return not own or step.verb.startswith("__main__:")

    def _worker(self, step: Step) -> Worker:
        """Return a free worker that suits a step, or a new one."""
        threads, memory = max(1, int(step.resources.cpus)), step.resources.memory
        for worker in [worker for worker in self._workers if worker.task is None and worker.gone(0)]:
            self._retire(worker)  # it died while it had nothing to do
        free = [worker for worker in self._workers if worker.task is None]
        for worker in free:
            if worker.threads == threads and (not memory or worker.resident() <= memory * _ROOM_INSIDE):
                return worker
        if free and len(self._workers) >= self._most:
            self._retire(free[0])
        return self._start(threads)

    def _start(self, threads: int) -> Worker:
        from modelyard.pipeline.workers import Worker

        if not self._workers:
            self._system_kills = system_kills()
        worker = Worker(self._store.root, threads=threads, cage=self._cages.make())
        self._workers.append(worker)
        for fd in (worker.pipe.fileno(), worker.life):
            self._by_fd[fd] = worker
            self._poll.register(fd, select.POLLIN)
        return worker

    def _hear(self, worker: Worker, fd: int) -> list[tuple[Task, Outcome]]:
        """Take in an answer, or the end of a worker."""
        task = worker.task
        if fd == worker.life:
            return self._ended(worker)
        outcome = None if task is None else worker.take()
        if task is None or outcome is None:
            # It is ending; what it started may take a moment longer.
            self._poll.unregister(fd)
            del self._by_fd[fd]
            return []
        if outcome.failure is not None and worker.starved():
            # The kernel killed something that the step had started.
            outcome = msgspec.structs.replace(outcome, failure=out_of_memory(task.step, before=outcome.failure))
        return [(task, outcome)]

    def _ended(self, worker: Worker) -> list[tuple[Task, Outcome]]:
        """Take in that nothing of a worker is left, and say why if it had a task."""
        task, cause, seconds, usage = worker.task, worker.cause, worker.seconds, worker.used()
        starved = cause == "memory" or worker.starved()
        status = self._retire(worker)
        if task is None:
            return []
        if status == -signal.SIGKILL and not cause and not worker.caged:
            # Nobody counted what was killed in this worker: the counter of the whole system has to do.
            before, self._system_kills = self._system_kills, system_kills()
            starved = self._system_kills > before
        failure = _why(task.step, cause, status, usage.peak_bytes if starved else None)
        return [(task, Outcome(failure=failure, seconds=seconds, cpu_seconds=usage.cpu_seconds, usage=usage))]

    def _retire(self, worker: Worker) -> int:
        self._workers.remove(worker)
        for fd in (worker.pipe.fileno(), worker.life):
            if self._by_fd.pop(fd, None) is not None:
                self._poll.unregister(fd)
        return worker.end()


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
