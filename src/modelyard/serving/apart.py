"""A thread beside the event loop for what would keep it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Apart"]

R = TypeVar("R")


class Apart:
    """A thread that is made when it is first needed.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def do(self, work: Callable[[], R], then: Callable[[R], None]) -> None:
        """Do some work there, which must not raise, and go on with what it returns in the loop.

        Raises:
            RuntimeError: No thread is to be had; nothing of the work is or will be done.
        """
        if self._closed:
            raise RuntimeError("the version is closed")
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        loop = asyncio.get_running_loop()
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            # It holds the work, and would do it as soon as it gets its thread.
            self._pool = None
            raise

        def tell(done: Future[R]) -> None:
            # The server may have ended meanwhile: then nobody waits for it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(then, done.result())

        future.add_done_callback(tell)

    def close(self) -> None:
        """End the thread once its work is done."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown()
