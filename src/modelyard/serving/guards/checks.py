"""Have the declared checks look at the answers of a group before anybody gets them.

Built-in ones are cheap and run on the spot; most groups they clear at a glance, and those go on as if there were none.
Code of the user's runs in threads, all at once, so that the event loop never waits for it; what fails, or takes longer
than it may, is treated as declared (`on_error`), counted and said.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from modelyard._kit.clock import Clock
from modelyard.inference import Bundle
from modelyard.inference.decode import decode_rows
from modelyard.serving.asked import Asked
from modelyard.serving.guards.base import Batch, Check, Verdict
from modelyard.serving.guards.crew import Crew
from modelyard.serving.guards.glance import Ruled
from modelyard.serving.guards.plugins import check_of
from modelyard.serving.guards.policy import OutputCheck
from modelyard.serving.guards.rules import BUILT_IN
from modelyard.serving.parsed import Parsed
from modelyard.serving.told import say, speaking, voice_here
from modelyard.serving.validate import Validator

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Checks", "Mark", "verdicts"]

# Calls of the user's checks at once; when as many hang, further ones are not begun.
_THREADS = 4
_NO_THREAD = "all threads are taken by calls that hang"
# Seconds between two lines about a check that fails, and signs of a reason that are kept.
_QUIET = 60.0
_REASON = 200
# The reason in place of one that may tell what is never written down.
_HUSHED = "it is marked"

# Counts rows by guard and by what was done.
Decide = Callable[..., None]
# Takes a group and the model's output once the group has been looked at.
Then = Callable[[list[Asked], Any], None]


class Mark(NamedTuple):
    """A row that a check has marked.

    Attributes:
        row: Which of its request.
        check: Name of the check.
        do: What becomes of the answer: `warn`, `abstain` or `fallback`.
        reason: Why, for the request log and as far as that may know; callers are not told.
    """

    row: int
    check: str
    do: str
    reason: str


class _Loaded(NamedTuple):
    declared: OutputCheck
    call: Check
    # It may look at what is never written down, so no word of its own is, either.
    hushed: bool

    @property
    def cheap(self) -> bool:
        """It runs on the spot."""
        return isinstance(self.call, Ruled)

    def clears(self, output: Any, fitting: Sequence[Parsed]) -> bool:
        """Say at a glance that it marks nothing."""
        return isinstance(self.call, Ruled) and self.call.clears(output, fitting)


class _Look:
    """One group that is being looked at."""

    def __init__(self, group: list[Asked], output: Any, batch: Batch, then: Then) -> None:
        self.group = group
        self.output = output
        self.batch = batch
        self.then = then
        self.marks: list[tuple[int, str, str, str]] = []
        self.left = 0


class _Call:
    """One check of one group, in a thread."""

    __slots__ = ("late", "loaded", "look", "over", "timer")

    def __init__(self, look: _Look, loaded: _Loaded) -> None:
        self.look = look
        self.loaded = loaded
        # It has a thread and nobody waits for it any more; and nobody does, whether it has one or not.
        self.late = self.over = False
        self.timer: asyncio.TimerHandle | None = None


class Checks:
    """The checks of one version.

    Args:
        declared: What is declared.
        bundle: The bundle.
        validator: Says what the columns of a request are.
        decide: Counts rows by guard and by what was done.
        project: Folder that paths begin at.
        redact: Columns that are never written down; nor is what a check that may see them says of a row.
        clock: Source of the time, for how often a failing check is said.

    Attributes:
        idle: None of them ever marks an answer of this model.

    Raises:
        ServeError: One cannot be loaded, or does not suit the model (`guard-unusable`).
    """

    def __init__(
        self,
        declared: Sequence[OutputCheck],
        bundle: Bundle,
        validator: Validator,
        decide: Decide,
        project: Path,
        *,
        redact: Collection[str] = (),
        clock: Clock = time.monotonic,
    ) -> None:
        loaded = [_Loaded(one, check_of(one, project, bundle), _sees(one, redact)) for one in declared]
        self._checks = [one for one in loaded if not (isinstance(one.call, Ruled) and one.call.idle)]
        self.idle = not self._checks
        self._problem = bundle.signature.problem
        self._labels = bundle.labels or self._problem.classes
        self._validator = validator
        self._decide = decide
        self._clock = clock
        self._voice = voice_here()
        self._crew = Crew(_THREADS)
        # Calls that took too long and still have their thread, and those that have none yet.
        self._hanging = 0
        self._waiting: set[_Call] = set()
        self._said: dict[str, float] = {}
        self._marks: dict[int, list[Mark]] = {}

    @property
    def marked(self) -> bool:
        """Whether a row is marked of what is being answered now."""
        return bool(self._marks)

    def clears(self, group: list[Asked], output: Array | BaseException | None) -> bool:
        """Say at a glance that nothing of a group is marked, nor has to be looked at."""
        if output is None or isinstance(output, BaseException):
            return True
        return self.clear_rows([asked.parsed for asked in group if asked.parsed.error is None], output)

    def clear_rows(self, fitting: Sequence[Parsed], output: Any) -> bool:
        """Do what `clears` does, of rows whoever asked for them."""
        return all(loaded.clears(output, fitting) for loaded in self._checks)

    def look(self, group: list[Asked], output: Array | BaseException | None, then: Then) -> None:
        """Look at what the model says of a group, and go on with it: on the spot, or later in the event loop.

        Args:
            group: Requests; those with an error are not among the rows.
            output: The model's output, what it raised, or none where no row fits.
            then: Is called with both.
        """
        if output is None or isinstance(output, BaseException):
            then(group, output)
            return
        fitting = [asked.parsed for asked in group if asked.parsed.error is None]
        answers = decode_rows(output.tolist(), self._problem, self._labels)
        batch = Batch(answers, lambda: self._columns(fitting))
        look = _Look(group, output, batch, then)
        slow = [loaded for loaded in self._checks if not loaded.cheap]
        look.left = len(slow)
        for loaded in self._checks:
            if loaded.cheap and not loaded.clears(output, fitting):
                self._ended(look, loaded, *_call(loaded, batch))
        for loaded in slow:
            self._begin(_Call(look, loaded))
        if not slow:
            self._go_on(look)

    def take(self, parsed: Parsed) -> list[Mark]:
        """Return the marks of a request, once."""
        return self._marks.pop(id(parsed), [])

    def close(self) -> None:
        """Let the threads go."""
        self._crew.close()

    def _begin(self, call: _Call) -> None:
        if self._hanging >= _THREADS:
            self._arrived(call, None, _NO_THREAD)
            return
        loop = asyncio.get_running_loop()
        self._waiting.add(call)

        def work() -> None:
            found: list[str] | None = None
            trouble = ""
            # The loop is gone where the server has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                if not call.over:
                    loop.call_soon_threadsafe(self._started, call)
                    found, trouble = _call(call.loaded, call.look.batch)
                loop.call_soon_threadsafe(self._back, call, found, trouble)

        self._crew.do(work)

    def _started(self, call: _Call) -> None:
        """Give a call its time: what it waited for a thread is not its own."""
        self._waiting.discard(call)
        if call.over:
            self._hang(call)
        else:
            call.timer = asyncio.get_running_loop().call_later(call.loaded.declared.timeout, self._late, call)

    def _back(self, call: _Call, found: list[str] | None, trouble: str) -> None:
        if call.late:
            self._hanging -= 1
        elif not call.over:
            assert call.timer is not None  # noqa: S101 - it was begun
            call.timer.cancel()
            self._arrived(call, found, trouble)

    def _late(self, call: _Call) -> None:
        call.over = True
        self._hang(call)
        self._arrived(call, None, f"it took more than {call.loaded.declared.timeout * 1000:g} ms")

    def _hang(self, call: _Call) -> None:
        """Count a thread that is lost for now; with the last of them nobody waits for one any more."""
        call.late = True
        self._hanging += 1
        if self._hanging >= _THREADS:
            waiting, self._waiting = self._waiting, set()
            for one in waiting:
                one.over = True
                self._arrived(one, None, _NO_THREAD)

    def _arrived(self, call: _Call, found: list[str] | None, trouble: str) -> None:
        look = call.look
        self._ended(look, call.loaded, found, trouble)
        look.left -= 1
        if not look.left:
            self._go_on(look)

    def _ended(self, look: _Look, loaded: _Loaded, found: list[str] | None, trouble: str) -> None:
        """Note what a check says of the rows."""
        declared, name = loaded.declared, loaded.declared.name
        do = declared.do
        if trouble:
            self._decide(name, "error", len(look.batch))
            self._tell(name, trouble)
            if (declared.on_error or ("accept" if do == "warn" else "abstain")) == "accept":
                return
            do = "abstain" if do == "warn" else do
            found = ["the check failed"] * len(look.batch)
        elif loaded.hushed:
            found = [reason and _HUSHED for reason in found or ()]
        look.marks += [(row, name, do, reason) for row, reason in enumerate(found or ()) if reason]

    def _go_on(self, look: _Look) -> None:
        if look.marks:
            fitting = [asked.parsed for asked in look.group if asked.parsed.error is None]
            ends = list(accumulate(parsed.count for parsed in fitting))
            by_row: dict[int, list[tuple[str, str, str]]] = {}
            for row, *mark in look.marks:
                by_row.setdefault(row, []).append(tuple(mark))  # type: ignore[arg-type]
            at = 0
            for row in sorted(by_row):
                while row >= ends[at]:
                    at += 1
                begins = ends[at] - fitting[at].count
                self._marks.setdefault(id(fitting[at]), []).extend(Mark(row - begins, *one) for one in by_row[row])
        look.then(look.group, look.output)

    def _tell(self, name: str, trouble: str) -> None:
        now = self._clock()
        if now - self._said.get(name, -math.inf) >= _QUIET:
            self._said[name] = now
            with speaking(self._voice):
                say(f"guards: the check `{name}` failed: {trouble}", level="error")

    def _columns(self, fitting: list[Parsed]) -> dict[str, list[Any]]:
        """Return the inputs by column."""
        columns: dict[str, list[Any]] = {name: [] for name in self._validator.columns.names}
        for parsed in fitting:
            numbers = self._validator.numbers_of(parsed)
            if numbers is not None:
                for feature, values in zip(self._validator.numbers, numbers.T.tolist(), strict=True):
                    columns[feature.name] += [None if value != value else value for value in values]
            if parsed.categories is not None:
                for feature, values in zip(self._validator.categories, parsed.categories.T.tolist(), strict=True):
                    columns[feature.name] += [value or None for value in values]
        return columns


def _call(loaded: _Loaded, batch: Batch) -> tuple[list[str] | None, str]:
    """Return the reasons of the rows, or why there are none."""
    try:
        return verdicts(loaded.call(batch), len(batch), loaded.declared.above), ""
    except BaseException as error:  # noqa: BLE001 - the user's code must not end a thread, let alone the server
        said = "" if loaded.hushed else f": {error}"
        return None, f"{type(error).__name__}{said}"


def _sees(declared: OutputCheck, redact: Collection[str]) -> bool:
    """Whether a check may look at one of some columns: ours at those that it is told, code of others at any."""
    told = declared.params.get("columns", ()) if declared.use in BUILT_IN else redact
    return not frozenset(redact).isdisjoint(told)


def verdicts(given: Iterable[Verdict], count: int, above: float) -> list[str]:
    """Return the reason of each row that is marked, and nothing for the others.

    Args:
        given: What a check returned.
        count: How many rows it was given.
        above: Score from above which a row is marked.

    Raises:
        TypeError: Something in it is no verdict.
        ValueError: There are more or fewer than rows, or a score is not a number.
    """
    given = given.tolist() if hasattr(given, "tolist") else list(given)
    if len(given) != count:
        raise ValueError(f"{len(given)} verdicts for {count} rows")
    return [_reason(verdict, above) for verdict in given]


def _reason(verdict: Any, above: float) -> str:
    if verdict is None or verdict is False:
        return ""
    if verdict is True:
        return "it is marked"
    if isinstance(verdict, str):
        return verdict[:_REASON]
    if not isinstance(verdict, int | float) and not hasattr(verdict, "__float__"):
        raise TypeError(f"`{type(verdict).__name__}` is no verdict: give a score, a reason, True, False or None")
    score = float(verdict)
    if math.isnan(score):
        raise ValueError("a score is not a number")
    return f"its score is {score:.4g}" if score > above else ""
