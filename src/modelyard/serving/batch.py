"""Run the model once for all rows that came in during one turn of the event loop; no timer, no waiting.

A turn of several requests goes on while a look at the sockets brings more: those whose answers were just written send
their next ones while the first of them are read, and a run of the model costs as much as thirty rows more in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from modelyard.inference import Feeds, Predictor
from modelyard.serving.parsed import Parsed

# The model's output as lists: rows x classes, or rows x 1.
Rows = list[list[float]]

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    # The same as lists, or as the model gave it.
    Output = Rows | Array

__all__ = ["INLINE_ROWS", "Batcher", "Rows"]

# From this many rows on the model runs in a thread, so that small requests and health checks do not wait for it.
INLINE_ROWS = 256


# Seconds of work that one turn of the loop may take on: who comes on top would wait for a turn in which it is too late.
TURN = 0.05
# Requests that a turn may hold however long they take; before one took too long, only the server's limit counts.
_FEWEST, _ANY = 16, 1 << 30
# Requests from which on a turn does not wait for another look; nor does one with the rows of a whole run.
_ENOUGH = 64


class _Asking(Protocol):
    """Whatever waits for an answer."""

    @property
    def parsed(self) -> Parsed:
        """Its rows."""
        ...


T = TypeVar("T", bound=_Asking)


def _nobody(group: list[Any], output: Array | BaseException | None) -> None:
    """Answer nobody: the version is closed."""


def _parted(gathered: list[T]) -> Iterator[list[T]]:
    """Yield groups of requests, each with as many as have the rows of one run together."""
    group: list[T] = []
    rows = 0
    for one in gathered:
        if group and rows + one.parsed.count > INLINE_ROWS:
            yield group
            group, rows = [], 0
        group.append(one)
        rows += one.parsed.count
    yield group


class _Gone:
    """Stands where the model was."""

    def predict(self, feeds: Feeds) -> Array:
        raise RuntimeError("the version is closed")


class Batcher(Generic[T]):
    """Collects rows and hands each group of requests its model's output.

    Args:
        predictor: Runs the model.
        fit: Makes feeds of the rows of several requests; those it finds an `error` in are not among them.
        answered: Is called with a group and the output for the rows of those without an error, in order (none if there
            are no such rows); or with what the model raised.

    Attributes:
        runs: Times the model ran.
        waiting: Requests that are not answered yet; also counts what others hold back before or after the model.
        most: Rows that one turn may hold: what it makes of them in `TURN` seconds, as turns went that took longer.
        busy: This turn holds as much as it may.
    """

    def __init__(
        self,
        predictor: Predictor,
        fit: Callable[[list[Parsed]], Feeds],
        answered: Callable[[list[T], Array | BaseException | None], None],
    ) -> None:
        self._predictor = predictor
        self._fit = fit
        self._answered = answered
        self._gathered: list[T] = []
        self._pool: ThreadPoolExecutor | None = None
        self.runs = 0
        self.waiting = 0
        self.most = _ANY
        self.busy = False
        # Rows that are gathered, and how many requests there were at the last look.
        self._rows = self._seen = 0

    def ask(self, one: T) -> None:
        """Run the model for its rows, in this turn of the event loop or in a thread, and call back in the loop."""
        count, gathered = one.parsed.count, self._gathered
        if count >= INLINE_ROWS:
            self._ask_apart(one)
            return
        self.waiting += 1
        if not gathered:
            self._seen = 1
            asyncio.get_running_loop().call_soon(self._look)
        gathered.append(one)
        self._rows = rows = self._rows + count
        if rows >= self.most:
            self.busy = len(gathered) >= _FEWEST

    def _ask_apart(self, one: T) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="predict")
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._predict, [one])
        # Not before: where no thread is to be had nobody would take it back.
        self.waiting += 1
        future.add_done_callback(lambda f: loop.call_soon_threadsafe(self._ended, one, f))

    def warm(self, feeds: Feeds) -> None:
        """Run the model before anybody waits for it."""
        self._predictor.predict(feeds)

    def attempt(self, parsed: Parsed, fit: Callable[[list[Parsed]], Feeds]) -> list[list[float]]:
        """Run the model for one request beside those that are asked; in any thread.

        Args:
            parsed: Its rows.
            fit: Makes feeds of them.

        Raises:
            HttpError: The rows do not fit.
        """
        feeds = fit([parsed])
        if parsed.error is not None:
            raise parsed.error
        rows: list[list[float]] = self._predictor.predict(feeds).tolist()
        return rows

    def close(self) -> None:
        """Stop the thread once its work is done, and let go of the model."""
        if self._pool is not None:
            self._pool.shutdown()
        # Who answers holds us: the collector may come late, or never look at what lived when the server began.
        self._answered = _nobody
        # Somebody may hold us to the end of the process, too: of a version that is gone, the model is what is large.
        self._predictor = _Gone()

    def _predict(self, group: list[T]) -> Array | None:
        feeds = self._fit([one.parsed for one in group])
        if not feeds:
            return None
        self.runs += 1
        return self._predictor.predict(feeds)

    def _ended(self, one: T, future: Future[Array | None]) -> None:
        self.waiting -= 1
        self._answered([one], future.exception() or future.result())

    def _look(self) -> None:
        """Let the loop read once more if the last time brought something, else end the turn."""
        count = len(self._gathered)
        if self._seen < count < _ENOUGH and self._rows < min(self.most, INLINE_ROWS):
            self._seen = count
            asyncio.get_running_loop().call_soon(self._look)
        else:
            self._flush()

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        rows, self._rows, self.busy = self._rows, 0, False
        began = time.thread_time() if len(gathered) >= _FEWEST else 0.0
        for group in [gathered] if rows <= INLINE_ROWS else _parted(gathered):
            self.waiting -= len(group)
            try:
                output = self._predict(group)
            except Exception as error:  # noqa: BLE001 - whatever the model raises belongs to those who asked
                self._answered(group, error)
            else:
                self._answered(group, output)
        if len(gathered) >= _FEWEST:
            self._learn(rows, time.thread_time() - began)

    def _learn(self, rows: int, took: float) -> None:
        """Set how many rows a turn may hold by how long one took that held so many; of this thread's time alone."""
        if took > TURN:
            self.most = max(_FEWEST, int(rows * TURN / took))
        elif rows >= self.most:
            self.most += self.most // 4
