"""A few threads for code of the user's: what hangs in one keeps neither the event loop nor the end of the server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from modelyard.serving.told import keep_voice

__all__ = ["Crew"]


class Crew:
    """Threads that are started as they are needed, and end with the process whatever they are doing.

    The pool of `concurrent.futures` waits for its threads when the interpreter ends: one that hangs would keep it.

    Args:
        size: How many at most.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        # Threads that wait for work, less the work that waits for them.
        self._idle = 0

    def do(self, work: Callable[[], None]) -> None:
        """Do some work in one of the threads; it must not raise."""
        with self._lock:
            self._idle -= 1
            start = self._idle < 0 and self._started < self._size
            if start:
                self._started += 1
                self._idle += 1
        if start:
            threading.Thread(target=keep_voice(self._work), name="guard", daemon=True).start()
        self._queue.put(work)

    def close(self) -> None:
        """Let the threads go once they have done what waits."""
        for _ in range(self._started):
            self._queue.put(None)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            with self._lock:
                self._idle += 1
