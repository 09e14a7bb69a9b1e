"""Tasks that wait for nothing but room."""

from __future__ import annotations

from collections import deque
from itertools import islice

from modelyard.pipeline.execute import Task
from modelyard.pipeline.executors import Executor

__all__ = ["Ready"]

# Of those that run beside the runner, how many are asked whether there is room: the ones behind wait their turn.
_LOOK_AHEAD = 64


class Ready:
    """Prepared tasks in the order in which they became ready.

    Tasks that run beside the runner go first: they run while it is busy with those that it does itself.

    Args:
        executor: Where they will run.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._beside: deque[Task] = deque()
        self._here: deque[Task] = deque()

    def __bool__(self) -> bool:
        return bool(self._beside or self._here)

    def add(self, task: Task) -> None:
        """Add a task at the end."""
        (self._beside if self._executor.beside(task) else self._here).append(task)

    def take(self) -> Task | None:
        """Remove and return the first task that there is room for; none if there is room for none."""
        task = next((task for task in islice(self._beside, _LOOK_AHEAD) if self._executor.room(task)), None)
        if task is not None:
            self._beside.remove(task)
            return task
        return self._here.popleft() if self._here and self._executor.room(self._here[0]) else None

    def clear(self) -> None:
        """Forget all."""
        self._beside.clear()
        self._here.clear()
