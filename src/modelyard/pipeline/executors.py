"""Where steps run: in the runner's own process, or side by side in warm worker processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import msgspec

from modelyard.pipeline.execute import Failure, Outcome, Task, execute
from modelyard.records import Usage
from modelyard.store import Store

__all__ = ["Executor", "LocalExecutor", "cores"]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Executor(Protocol):
    """Runs tasks; the runner asks for room, submits, and waits."""

    def room(self, task: Task) -> bool:
        """Say whether this task could start now."""
        ...

    def submit(self, task: Task) -> Outcome | None:
        """Start a task: an outcome if it ran on the spot, none if it is under way."""
        ...

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        """Wait until at least one task under way has ended, or so many seconds, and return those that have."""
        ...

    def used(self) -> Usage:
        """Return what the tasks under way have used until now."""
        ...

    def close(self) -> None:
        """End every worker at once; tasks under way are given up."""
        ...


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    task: Task | None = None


class LocalExecutor:
    """Short steps in the runner's process, steps with `own_process` in up to `workers` processes beside it.

    Args:
        store: The project's store; workers open it by its root.
        workers: How many processes at most; the cores of the machine by default.
        functions: Verb -> function, for functions that only this process knows; these run here.
    """

    def __init__(
        self, store: Store, *, workers: int = 0, functions: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self._store = store
        self._most = workers or cores()
        self._functions = dict(functions or {})
        self._workers: list[_Worker] = []

    def _here(self, task: Task) -> bool:
        return not task.step.resources.own_process or task.step.verb.startswith("__main__:")

    def room(self, task: Task) -> bool:
        """Say whether this task could start now."""
        return self._here(task) or len(self._workers) < self._most or any(w.task is None for w in self._workers)

    def submit(self, task: Task) -> Outcome | None:
        """Run a short task on the spot, hand another to a free worker."""
        if self._here(task):
            return execute(task, self._store, self._functions.get(task.step.verb))
        message = msgspec.json.encode(task)
        while worker := next((w for w in self._workers if w.task is None), None):
            try:
                worker.pipe.send_bytes(message)
            except OSError:
                # It died while it had nothing to do; another takes its place.
                self._workers.remove(worker)
                worker.pipe.close()
                worker.process.wait()
            else:
                worker.task = task
                return None
        worker = self._start()
        worker.pipe.send_bytes(message)
        worker.task = task
        return None

    def used(self) -> Usage:
        """Return what the tasks under way have used until now."""
        return Usage()

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        """Wait for at least one worker to answer, at most so many seconds; a worker that died is a failed task."""
        busy = {w.pipe: w for w in self._workers if w.task is not None}
        ended = []
        for ready in wait(list(busy), seconds):
            worker = busy[ready]  # type: ignore[index]
            task, worker.task = worker.task, None
            assert task is not None  # noqa: S101 - only busy workers were waited for
            try:
                outcome = msgspec.json.decode(worker.pipe.recv_bytes(), type=Outcome)
            except (EOFError, ConnectionResetError):
                outcome = Outcome(failure=self._died(worker, task))
            ended.append((task, outcome))
        return ended

    def close(self) -> None:
        """Kill the workers; what they had not answered is not recorded and runs again next time."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
        self._workers.clear()

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        threads = str(max(1, cores() // self._most))
        command = [sys.executable, "-m", "modelyard.pipeline.worker"]
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(Path(self._store.root).resolve())],
                pass_fds=[theirs.fileno()],
                # One thread budget: workers times threads never exceeds the cores.
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": threads,
                    "OPENBLAS_NUM_THREADS": threads,
                    "POLARS_MAX_THREADS": threads,
                },
                stdin=subprocess.DEVNULL,
            )
        worker = _Worker(process, Connection(ours.detach()))
        self._workers.append(worker)
        return worker

    def _died(self, worker: _Worker, task: Task) -> Failure:
        self._workers.remove(worker)
        worker.pipe.close()
        code = worker.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        hint = "the system kills processes that use too much memory" if code == -signal.SIGKILL else ""
        return Failure(code="worker-died", message=f"the process of step `{task.step.name}` {how}", hint=hint)
