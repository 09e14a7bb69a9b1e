"""Run the model once for all rows that came in during one turn of the event loop; no timer, no waiting.

A turn of several requests goes on while a look at the sockets brings more: those whose answers were just written send
their next ones while the first of them are read, and a run of the model costs as much as thirty rows more in it.

Where the model takes long a turn happens in a thread, and what comes in meanwhile is the next turn: health checks do
not wait for it, and who finds no room is told so at once and on another core.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from modelyard.inference import Feeds, Predictor
from modelyard.serving.pace import Pace
from modelyard.serving.parsed import Parsed

# The model's output as lists: rows x classes, or rows x 1.
Rows = list[list[float]]

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    # The same as lists, or as the model gave it.
    Output = Rows | Array

__all__ = ["INLINE_ROWS", "Batcher", "Rows"]

# A request of this many rows has a run of its own in a thread, and no run of several has more.
INLINE_ROWS = 256
# Seconds of work that one turn may take on: who comes on top would wait for a turn in which it is too late.
TURN = 0.05
# Seconds for which the model may keep the event loop; a thread costs 0.1 ms.
_INLINE = 0.005
# Rows that are enough to see before anybody asks how fast it is.
_WARM = 32
# Requests that a turn may hold however long they take.
_FEWEST = 16
# Requests from which on a turn does not wait for another look; nor does one with the rows of a whole run.
_ENOUGH = 64


class _Asking(Protocol):
    """Whatever waits for an answer."""

    @property
    def parsed(self) -> Parsed:
        """Its rows."""
        ...


T = TypeVar("T", bound=_Asking)
R = TypeVar("R")


def _nobody(group: list[Any], output: Array | BaseException | None) -> None:
    """Answer nobody: the version is closed."""


@dataclass(slots=True)
class _Run(Generic[T]):
    """One run of the model.

    Attributes:
        group: Whose rows they are.
        ran: The model was run.
        output: What the model answered, or raised; none if no row fits.
        took: Seconds by the clock on the wall: a model that waits keeps the loop, too.
        worked: Seconds of the thread's own time; measured in the thread of turns alone.
    """

    group: list[T]
    ran: bool = False
    output: Array | BaseException | None = None
    took: float = 0.0
    worked: float = 0.0

    @property
    def answered(self) -> int:
        """Rows that the model answered: of others nothing is learned."""
        return 0 if self.output is None or isinstance(self.output, BaseException) else len(self.output)


def _runs(gathered: list[T], every: int) -> Iterator[_Run[T]]:
    """Yield runs for as many requests each as have the rows of one together.

    Args:
        gathered: The requests.
        every: Rows of all of them.
    """
    if every <= INLINE_ROWS:
        yield _Run(gathered)
        return
    group: list[T] = []
    rows = 0
    for one in gathered:
        if group and rows + one.parsed.count > INLINE_ROWS:
            yield _Run(group)
            group, rows = [], 0
        group.append(one)
        rows += one.parsed.count
    yield _Run(group)


class _Apart:
    """A thread for the model, made when it is first needed.

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
        turn: Rows that one turn may hold: what it makes of them in `TURN` seconds.
        inline: Rows of a turn that may keep the event loop.
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
        # Large requests have a thread of their own: those of a turn do not wait for them.
        self._large = _Apart("predict-large")
        self._turns = _Apart("predict")
        self.runs = 0
        self.waiting = 0
        self.turn = Pace(TURN, least=_FEWEST)
        self.inline = Pace(_INLINE, least=0)
        self.busy = False
        # A turn is in the thread.
        self._away = False
        # Rows that are gathered, and how many requests there were at the last look.
        self._rows = self._seen = 0

    def ask(self, one: T) -> None:
        """Run the model for its rows, in this turn of the event loop or in a thread, and call back in the loop."""
        count, gathered = one.parsed.count, self._gathered
        if count >= INLINE_ROWS:
            run = _Run([one])
            self._large.do(lambda: self._do_apart([run]), self._answer)
            # Not before: where no thread is to be had nobody would take it back.
            self.waiting += 1
            return
        self.waiting += 1
        if not gathered and not self._away:
            self._seen = 1
            asyncio.get_running_loop().call_soon(self._look)
        gathered.append(one)
        self._rows = rows = self._rows + count
        if rows >= self.turn.rows:
            self.busy = len(gathered) >= _FEWEST

    def drop(self) -> list[T]:
        """Return those that wait for their turn, which do not wait any more."""
        gathered, _ = self._taken()
        self.waiting -= len(gathered)
        return gathered

    def warm(self, feeds: Feeds) -> None:
        """Run the model before anybody waits for it, and see whether it is slow.

        Args:
            feeds: One row.
        """
        self._predictor.predict(feeds)
        rows, took = 1, self._timed(feeds)
        if took < _INLINE:
            rows = min(_WARM, int(_INLINE / took) + 1)
            took = self._timed({name: values.repeat(rows, axis=0) for name, values in feeds.items()})
        self.inline.learn(rows, took)
        if took > _INLINE:
            # As many more rows take as many times as long: the first turn need not find that out.
            more = TURN / _INLINE
            self.turn.learn(int(rows * more), took * more)

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
        """Stop the threads once their work is done, and let go of the model."""
        self._large.close()
        self._turns.close()
        # Who answers holds us: the collector may come late, or never look at what lived when the server began.
        self._answered = _nobody
        # Somebody may hold us to the end of the process, too: of a version that is gone, the model is what is large.
        self._predictor = _Gone()

    def _timed(self, feeds: Feeds) -> float:
        began = time.thread_time()
        self._predictor.predict(feeds)
        return max(time.thread_time() - began, 1e-6)

    def _do(self, run: _Run[T]) -> None:
        """Run the model for a group."""
        began = time.monotonic()
        try:
            if feeds := self._fit([one.parsed for one in run.group]):
                run.ran = True
                run.output = self._predictor.predict(feeds)
        except Exception as error:  # noqa: BLE001 - whatever the model raises belongs to those who asked
            run.output = error
        run.took = time.monotonic() - began

    def _do_apart(self, runs: list[_Run[T]]) -> list[_Run[T]]:
        """Run the model for each group, in a thread."""
        for run in runs:
            began = time.thread_time()
            try:
                self._do(run)
            except BaseException as error:  # noqa: BLE001 - a thread has nobody else to tell
                run.output = error
            run.worked = time.thread_time() - began
        return runs

    def _answer(self, runs: list[_Run[T]]) -> None:
        for run in runs:
            self.waiting -= len(run.group)
            self.runs += run.ran
            try:
                self._answered(run.group, run.output)
            except Exception as error:  # noqa: BLE001 - the groups after it are answered all the same
                message = "a group was not answered"
                asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def _look(self) -> None:
        """Let the loop read once more if the last time brought something, else end the turn."""
        count = len(self._gathered)
        if self._seen < count < _ENOUGH and self._rows < min(self.turn.rows, INLINE_ROWS):
            self._seen = count
            asyncio.get_running_loop().call_soon(self._look)
        elif count and not self._away:
            gathered, rows = self._taken()
            if not self._sent(gathered, rows):
                self._turn(gathered, rows)

    def _taken(self) -> tuple[list[T], int]:
        """Return what is gathered and how many rows it has, and begin anew."""
        gathered, self._gathered = self._gathered, []
        rows, self._rows, self.busy = self._rows, 0, False
        return gathered, rows

    def _turn(self, gathered: list[T], rows: int) -> None:
        """Do a turn in the loop."""
        much = len(gathered) >= _FEWEST
        began = time.thread_time() if much else 0.0
        took, answered = 0.0, 0
        for run in _runs(gathered, rows):
            self._do(run)
            took += run.took
            answered += run.answered
            self._answer([run])
        if answered:
            self.inline.learn(answered, took)
            if much:
                self.turn.learn(answered, time.thread_time() - began)

    def _sent(self, gathered: list[T], rows: int) -> bool:
        """Have a turn done in the thread, if it would keep the loop and there is a thread."""
        if rows <= self.inline.rows:
            return False
        runs = list(_runs(gathered, rows))
        try:
            self._turns.do(lambda: self._do_apart(runs), self._back)
        except RuntimeError:
            return False
        self._away = True
        return True

    def _back(self, runs: list[_Run[T]]) -> None:
        """Answer a turn that was done in the thread, where the next one is done meanwhile."""
        if answered := sum(run.answered for run in runs):
            self.inline.learn(answered, sum(run.took for run in runs))
            self.turn.learn(answered, sum(run.worked for run in runs))
        self._away = False
        gathered, rows = self._taken()
        sent = bool(gathered) and self._sent(gathered, rows)
        self._answer(runs)
        if gathered and not sent:
            self._turn(gathered, rows)
