"""Run the model once for all rows that came in during one turn of the event loop; no timer, no waiting."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from modelyard.inference import Feeds, Predictor

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Batcher"]

# From this many rows on the model runs in a thread, so that small requests and health checks do not wait for it.
INLINE_ROWS = 256


class Batcher:
    """Collects feeds and answers each with its own rows of the model's output.

    Args:
        predictor: Runs the model.

    Attributes:
        runs: Times the model ran.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._waiting: list[tuple[Feeds, int, asyncio.Future[Any]]] = []
        self._pool: ThreadPoolExecutor | None = None
        self.runs = 0

    async def predict(self, feeds: Feeds, rows: int) -> np.ndarray[Any, Any]:
        """Return the model's output for these rows."""
        loop = asyncio.get_running_loop()
        if rows >= INLINE_ROWS:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")
            self.runs += 1
            return await loop.run_in_executor(self._pool, self._predictor.predict, feeds)
        future: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((feeds, rows, future))
        result: np.ndarray[Any, Any] = await future
        return result

    def warm(self, feeds: Feeds) -> None:
        """Run the model before anybody waits for it."""
        self._predictor.predict(feeds)

    def close(self) -> None:
        """Stop the thread once its work is done."""
        if self._pool is not None:
            self._pool.shutdown()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        while waiting:
            size, count = 0, 0
            while count < len(waiting) and (not count or size + waiting[count][1] <= INLINE_ROWS):
                size += waiting[count][1]
                count += 1
            self._run(waiting[:count])
            waiting = waiting[count:]

    def _run(self, group: list[tuple[Feeds, int, asyncio.Future[Any]]]) -> None:
        self.runs += 1
        try:
            outputs = self._outputs(group)
        except Exception as error:  # noqa: BLE001 - whatever the model raises belongs to those who asked
            for _, _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, _, future), output in zip(group, outputs, strict=True):
            if not future.done():  # the caller may have hung up
                future.set_result(output)

    def _outputs(self, group: list[tuple[Feeds, int, asyncio.Future[Any]]]) -> list[np.ndarray[Any, Any]]:
        import numpy as np

        if len(group) == 1:
            return [self._predictor.predict(group[0][0])]
        whole = {name: np.concatenate([feeds[name] for feeds, _, _ in group]) for name in group[0][0]}
        output = self._predictor.predict(whole)
        parts, at = [], 0
        for _, rows, _ in group:
            parts.append(output[at : at + rows])
            at += rows
        return parts
