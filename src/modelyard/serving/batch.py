"""Run the model once for all rows that came in during one turn of the event loop; no timer, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from modelyard.inference import Feeds, Predictor
from modelyard.serving.validate import Parsed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Batcher"]

# From this many rows on the model runs in a thread, so that small requests and health checks do not wait for it.
INLINE_ROWS = 256

# Is called with the rows of the answer, or with what the model raised.
Done = Callable[["Array | BaseException"], None]


class Batcher:
    """Collects rows and answers each request with its own rows of the model's output.

    Args:
        predictor: Runs the model.
        fit: Makes feeds of the rows of several requests; those it finds an `error` in are not among them.

    Attributes:
        runs: Times the model ran.
        waiting: Requests that are not answered yet.
    """

    def __init__(self, predictor: Predictor, fit: Callable[[list[Parsed]], Feeds]) -> None:
        self._predictor = predictor
        self._fit = fit
        self._gathered: list[tuple[Parsed, Done]] = []
        self._pool: ThreadPoolExecutor | None = None
        self.runs = 0
        self.waiting = 0

    def ask(self, parsed: Parsed, done: Done) -> None:
        """Run the model for these rows, in this turn of the event loop or in a thread, and call back in the loop."""
        self.waiting += 1
        if parsed.count >= INLINE_ROWS:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")
            loop = asyncio.get_running_loop()
            future = self._pool.submit(self._alone, parsed)
            future.add_done_callback(lambda f: loop.call_soon_threadsafe(self._ended, f, done))
            return
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered.append((parsed, done))

    def warm(self, feeds: Feeds) -> None:
        """Run the model before anybody waits for it."""
        self._predictor.predict(feeds)

    def close(self) -> None:
        """Stop the thread once its work is done."""
        if self._pool is not None:
            self._pool.shutdown()

    def _alone(self, parsed: Parsed) -> Array:
        feeds = self._fit([parsed])
        if parsed.error is not None:
            raise parsed.error
        self.runs += 1
        return self._predictor.predict(feeds)

    def _ended(self, future: Future[Array], done: Done) -> None:
        self.waiting -= 1
        done(future.exception() or future.result())

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if len(gathered) <= INLINE_ROWS and all(parsed.count == 1 for parsed, _ in gathered):
            self._run(gathered)
            return
        at = 0
        while at < len(gathered):
            size, end = gathered[at][0].count, at + 1
            while end < len(gathered) and size + gathered[end][0].count <= INLINE_ROWS:
                size += gathered[end][0].count
                end += 1
            self._run(gathered[at:end])
            at = end

    def _run(self, group: list[tuple[Parsed, Done]]) -> None:
        self.waiting -= len(group)
        try:
            feeds = self._fit([parsed for parsed, _ in group])
            self.runs += 1
            output = self._predictor.predict(feeds) if feeds else None
        except Exception as error:  # noqa: BLE001 - whatever the model raises belongs to those who asked
            for _, done in group:
                done(error)
            return
        at = 0
        for parsed, done in group:
            if parsed.error is not None:
                done(parsed.error)
                continue
            assert output is not None  # noqa: S101 - somebody's rows were among the feeds
            done(output[at : at + parsed.count])
            at += parsed.count
