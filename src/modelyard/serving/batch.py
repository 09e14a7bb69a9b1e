"""Run the model once for all rows that came in during one turn of the event loop; no timer, no waiting.

A turn of several requests goes on while a look at the sockets brings more: those whose answers were just written send
their next ones while the first of them are read, and a run of the model costs as much as thirty rows more in it.

Where the model takes long a turn happens in a thread, and what comes in meanwhile is the next turn: health checks do
not wait for it, and who finds no room is told so at once and on another core.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from modelyard.inference import Feeds, Predictor
from modelyard.serving.apart import Apart
from modelyard.serving.pace import Pace
from modelyard.serving.parsed import Parsed
from modelyard.serving.timed import Timed

# The model's output as lists: rows x classes, or rows x 1.
Rows = list[list[float]]

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    # The same as lists, or as the model gave it.
    Output = Rows | Array

__all__ = ["ENOUGH", "FEWEST", "INLINE_ROWS", "Batcher", "Rows"]

# A request of this many rows has a run of its own in a thread, and no run of several has more.
INLINE_ROWS = 256
# Seconds of work that one turn may take on: who comes on top would wait for a turn in which it is too late.
TURN = 0.05
# Seconds for which the model may keep the event loop; a thread costs 0.1 ms.
_INLINE = 0.005
# Rows that are enough to see before anybody asks how fast it is.
_WARM = 32
# Requests that a turn may hold however long they take.
FEWEST = 16
# Requests from which on a turn does not wait for another look; nor does one with the rows of a whole run.
ENOUGH = 64


class _Asking(Protocol):
    """Whatever waits for an answer."""

    @property
    def parsed(self) -> Parsed:
        """Its rows."""
        ...


T = TypeVar("T", bound=_Asking)


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
        ran: The model was run.
        output: What the model answered, or raised; none if no row fits.
        took: Seconds by the clock on the wall: a model that waits keeps the loop, too.
        worked: Seconds of the thread's own time; measured in the thread of turns alone.
        dropped: It was not made: nobody waits for it.
    """

    group: list[T]
    rows: int
    ran: bool = False
    output: Array | BaseException | None = None
    took: float = 0.0
    worked: float = 0.0
    dropped: bool = False

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
        yield _Run(gathered, every)
        return
    group: list[T] = []
    rows = 0
    for one in gathered:
        if group and rows + one.parsed.count > INLINE_ROWS:
            yield _Run(group, rows)
            group, rows = [], 0
        group.append(one)
        rows += one.parsed.count
    yield _Run(group, rows)


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
        inline: Rows of a turn that may keep the event loop.
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
        self._large = Apart("predict-large")
        self._turns = Apart("predict")
        self.runs = 0
        self.timed = Timed(INLINE_ROWS)
        self.waiting = 0
        self.turn = Pace(TURN, least=FEWEST)
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
            self._large.do(lambda: self._do_alone(one), self._answer)
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
            self.busy = len(gathered) >= FEWEST

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
        rows, took = 1, self._seconds(feeds)
        if took < _INLINE:
            rows = min(_WARM, int(_INLINE / took) + 1)
            took = self._seconds({name: values.repeat(rows, axis=0) for name, values in feeds.items()})
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

    @property
    def room(self) -> int:
        """Rows that this turn may still hold."""
        return self.turn.rows - self._rows

    def keeps_up(self, rows: int) -> bool:
        """Say whether so many rows may be run in the loop now: no turn is in the thread, and they would not need it."""
        return not self._away and rows <= self.inline.rows

    def run(self, feeds: Feeds) -> Array:
        """Run the model in the loop for rows that are not gathered here."""
        return self._predictor.predict(feeds)

    def ran(self, rows: int, took: float) -> None:
        """Count such a run.

        Args:
            rows: Rows, each of a request of its own.
            took: Seconds by the clock on the wall.
        """
        self.runs += 1
        self.timed.add(rows, rows, took)

    def learn(self, rows: int, took: float, worked: float) -> None:
        """Take how long a whole turn took, however it was cut into runs.

        Args:
            rows: Rows that it answered.
            took: Seconds of its runs by the clock on the wall.
            worked: Seconds of its thread's own time; 0: there were too few requests to tell.
        """
        self.inline.learn(rows, took)
        if worked:
            self.turn.learn(rows, worked)

    def close(self) -> None:
        """Stop the threads once their work is done, and let go of the model."""
        self._large.close()
        self._turns.close()
        # Who answers holds us: the collector may come late, or never look at what lived when the server began.
        self._answered = _nobody
        # Somebody may hold us to the end of the process, too: of a version that is gone, the model is what is large.
        self._predictor = _Gone()

    def _seconds(self, feeds: Feeds) -> float:
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

    def _do_alone(self, one: T) -> list[_Run[T]]:
        """Run the model for one request, in a thread, if it is still to be answered when its turn comes."""
        run = _Run([one], one.parsed.count, dropped=not self._stays(one))
        return [run] if run.dropped else self._do_apart([run])

    def _answer(self, runs: list[_Run[T]]) -> None:
        for run in runs:
            if run.dropped:
                self._sifted(run.group)
                continue
            self.waiting -= len(run.group)
            self.runs += run.ran
            if answered := run.answered:
                # Requests that do not fit were not in it.
                whole = answered == run.rows
                count = len(run.group) if whole else sum([one.parsed.error is None for one in run.group])
                self.timed.add(answered, count, run.took)
            try:
                self._answered(run.group, run.output)
            except Exception as error:  # noqa: BLE001 - the groups after it are answered all the same
                message = "a group was not answered"
                asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def _look(self) -> None:
        """Let the loop read once more if the last time brought something, else end the turn."""
        count = len(self._gathered)
        if self._seen < count < ENOUGH and self._rows < min(self.turn.rows, INLINE_ROWS):
            self._seen = count
            asyncio.get_running_loop().call_soon(self._look)
        elif count and not self._away:
            gathered, rows = self._taken()
            if gathered and not self._sent(gathered, rows):
                self._turn(gathered, rows)

    def _taken(self) -> tuple[list[T], int]:
        """Return what is gathered and how many rows it has, and begin anew."""
        gathered, self._gathered = self._gathered, []
        rows, self._rows, self.busy = self._rows, 0, False
        if self.sifts:
            self.sifts = False
            gathered = self._sifted(gathered)
            rows = sum([one.parsed.count for one in gathered])
        return gathered, rows

    def _sifted(self, group: list[T]) -> list[T]:
        """Return those of a group that are still to be answered; the others do not wait any more."""
        stay = [one for one in group if self._stays(one)]
        if len(stay) < len(group):
            self.waiting -= len(group) - len(stay)
            kept = set(map(id, stay))
            self._dropped([one for one in group if id(one) not in kept])
        return stay

    def _turn(self, gathered: list[T], rows: int) -> None:
        """Do a turn in the loop."""
        much = len(gathered) >= FEWEST
        began = time.thread_time() if much else 0.0
        took, answered = 0.0, 0
        for run in _runs(gathered, rows):
            self._do(run)
            took += run.took
            answered += run.answered
            self._answer([run])
        if answered:
            self.learn(answered, took, time.thread_time() - began if much else 0.0)

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
            self.learn(answered, sum(run.took for run in runs), sum(run.worked for run in runs))
        self._away = False
        gathered, rows = self._taken()
        sent = bool(gathered) and self._sent(gathered, rows)
        self._answer(runs)
        if gathered and not sent:
            self._turn(gathered, rows)
