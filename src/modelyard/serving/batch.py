"""Run the model once for all rows that came in during one turn of the event loop; no timer, no waiting.

A turn of several requests goes on while a look at the sockets brings more: those whose answers were just written send
their next ones while the first of them are read, and a run of the model costs as much as thirty rows more in it.

Where a run takes long it happens in a thread, and what comes in meanwhile is the next turn: nobody else waits for it,
health checks least, and who finds no room is told so at once and on another core.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
# Seconds for which a run may keep the event loop; a thread costs 0.1 ms.
_INLINE = 0.005
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


def _stays(one: Any) -> bool:
    """Whoever asked waits for the answer."""
    return True


def _nobody(group: list[Any], output: Array | BaseException | None) -> None:
    """Answer nobody: the version is closed."""


@dataclass(slots=True)
class _Run(Generic[T]):
    """One run of the model.

    Attributes:
        group: Whose rows they are.
        rows: How many.
        output: What the model answered, or raised; none if no row fits.
        took: Seconds, of one of several clocks.
        seconds: Seconds, by the clock on the wall.
        dropped: It was not made: nobody waits for it.
    """

    group: list[T]
    rows: int
    output: Array | BaseException | None = None
    took: float = 0.0
    seconds: float = 0.0
    dropped: bool = False


def _parted(gathered: list[T]) -> Iterator[_Run[T]]:
    """Yield runs for as many requests each as have the rows of one together."""
    group: list[T] = []
    rows = 0
    for one in gathered:
        if group and rows + one.parsed.count > INLINE_ROWS:
            yield _Run(group, rows)
            group, rows = [], 0
        group.append(one)
        rows += one.parsed.count
    yield _Run(group, rows)


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
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(then, done.result()))

    def close(self) -> None:
        """End the thread once its work is done."""
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown()


class Timed:
    """How long the runs of a model took, by the clock on the wall, from the rows of a group to the model's output.

    Attributes:
        requests: Requests that were in them.
        seconds: What each of these took part in, all together.
        sizes: Rows of a run, up to those of a run of several requests -> how many runs, and their seconds.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.sizes: dict[int, tuple[int, float]] = {}

    def add(self, rows: int, requests: int, seconds: float) -> None:
        """Count a run."""
        self.requests += requests
        self.seconds += requests * seconds
        if rows <= INLINE_ROWS:
            runs, before = self.sizes.get(rows, (0, 0.0))
            self.sizes[rows] = runs + 1, before + seconds


def _fitting(run: _Run[Any], rows: int) -> tuple[int, int]:
    """Return how many rows a run was for, and of how many requests: those that do not fit were not in it."""
    if rows == run.rows:
        return rows, len(run.group)
    return rows, sum([one.parsed.error is None for one in run.group])


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
        stays: Says whether a request is still to be answered, in any thread; once it is not, it never is again.
        dropped: Is called with those that are not, and do not wait any more.

    Attributes:
        runs: Times the model ran.
        timed: How long it took.
        waiting: Requests that are not answered yet; also counts what others hold back before or after the model.
        turn: Rows that one turn may hold: what it makes of them in `TURN` seconds.
        inline: Rows whose run may keep the event loop.
        busy: This turn holds as much as it may.
        sifts: Some of this turn may not be to be answered any more: it is sifted before the model runs.
    """

    def __init__(
        self,
        predictor: Predictor,
        fit: Callable[[list[Parsed]], Feeds],
        answered: Callable[[list[T], Array | BaseException | None], None],
        stays: Callable[[T], bool] = _stays,
        dropped: Callable[[list[T]], None] = lambda group: None,
    ) -> None:
        self._predictor = predictor
        self._fit = fit
        self._answered = answered
        self._stays = stays
        self._dropped = dropped
        self._gathered: list[T] = []
        # Large requests have a thread of their own: those of a turn do not wait for them.
        self._large = _Apart("predict-large")
        self._turns = _Apart("predict")
        self.runs = 0
        self.timed = Timed()
        self.waiting = 0
        self.turn = Pace(TURN, least=_FEWEST)
        self.inline = Pace(_INLINE, least=0)
        self.busy = self.sifts = False
        # A turn is in the thread.
        self._away = False
        # Rows that are gathered, and how many requests there were at the last look.
        self._rows = self._seen = 0

    def ask(self, one: T) -> None:
        """Run the model for its rows, in this turn of the event loop or in a thread, and call back in the loop."""
        count, gathered = one.parsed.count, self._gathered
        if count >= INLINE_ROWS:
            self._large.do(lambda: self._alone(one), self._answer)
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
        """Stop the threads once their work is done, and let go of the model."""
        self._large.close()
        self._turns.close()
        # Who answers holds us: the collector may come late, or never look at what lived when the server began.
        self._answered = _nobody
        # Somebody may hold us to the end of the process, too: of a version that is gone, the model is what is large.
        self._predictor = _Gone()

    def _do(self, runs: list[_Run[T]], clock: Callable[[], float] = time.thread_time) -> list[_Run[T]]:
        """Run the model for each group; in any thread."""
        for run in runs:
            began = clock()
            try:
                if feeds := self._fit([one.parsed for one in run.group]):
                    run.output = self._predictor.predict(feeds)
            except Exception as error:  # noqa: BLE001 - whatever the model raises belongs to those who asked
                run.output = error
            run.took = clock() - began
        return runs

    def _alone(self, one: T) -> list[_Run[T]]:
        """Run the model for one request, in a thread, if it is still to be answered when its turn comes."""
        run = _Run([one], one.parsed.count, dropped=not self._stays(one))
        return [run] if run.dropped else self._apart([run])

    def _apart(self, runs: list[_Run[T]]) -> list[_Run[T]]:
        """Run the model for each group, in a thread."""
        for run in runs:
            began = time.monotonic()
            self._do([run])
            run.seconds = time.monotonic() - began
        return runs

    def _answer(self, runs: list[_Run[T]]) -> None:
        for run in runs:
            if run.dropped:
                self._sifted(run.group)
                continue
            self.waiting -= len(run.group)
            if run.output is not None:
                self.runs += 1
                if not isinstance(run.output, BaseException):
                    self.timed.add(*_fitting(run, len(run.output)), run.seconds)
            self._answered(run.group, run.output)

    def _look(self) -> None:
        """Let the loop read once more if the last time brought something, else end the turn."""
        count = len(self._gathered)
        if self._seen < count < _ENOUGH and self._rows < min(self.turn.rows, INLINE_ROWS):
            self._seen = count
            asyncio.get_running_loop().call_soon(self._look)
        else:
            self._flush()

    def _flush(self, *, apart: bool = False) -> None:
        gathered, self._gathered = self._gathered, []
        rows, self._rows, self.busy = self._rows, 0, False
        if self.sifts:
            self.sifts = False
            gathered = self._sifted(gathered)
            rows = sum([one.parsed.count for one in gathered])
            if not gathered:
                return
        runs = [_Run(gathered, rows)] if rows <= INLINE_ROWS else list(_parted(gathered))
        if (apart or runs[0].rows > self.inline.rows) and self._send(runs):
            return
        began = time.thread_time() if len(gathered) >= _FEWEST else 0.0
        for run in runs:
            # By the clock on the wall: it is cheap, and a run that only seems long has its next one in the thread.
            self._do([run], time.monotonic)
            run.seconds = run.took
            self._answer([run])
            self.inline.learn(run.rows, run.took)
        if len(gathered) >= _FEWEST:
            self.turn.learn(rows, time.thread_time() - began)

    def _sifted(self, group: list[T]) -> list[T]:
        """Return those of a group that are still to be answered; the others do not wait any more."""
        stay = [one for one in group if self._stays(one)]
        if len(stay) < len(group):
            self.waiting -= len(group) - len(stay)
            kept = set(map(id, stay))
            self._dropped([one for one in group if id(one) not in kept])
        return stay

    def _send(self, runs: list[_Run[T]]) -> bool:
        """Have a turn done in the thread, if there is one."""
        try:
            self._turns.do(lambda: self._apart(runs), self._back)
        except RuntimeError:
            return False
        self._away = True
        return True

    def _back(self, runs: list[_Run[T]]) -> None:
        """Answer a turn that was done in the thread, where the next one is done meanwhile."""
        for run in runs:
            self.inline.learn(run.rows, run.took)
        self.turn.learn(sum(run.rows for run in runs), sum(run.took for run in runs))
        self._away = False
        if self._gathered:
            self._flush(apart=True)
        self._answer(runs)
