"""Keep the newest rows of each caller, and score them now and then, off the way of the answers.

The server looks once a second, in which who is in a hurry may ask ten thousand rows. So where callers are limited, one
who has asked a whole window is looked at sooner, as often as costs a twentieth of a core.

Memory is bounded: so many rows of so many callers, those that have not asked for longest go first. Of a request only
the rows that are looked at are kept, however many it brought, and of a long text only what tells it from others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ServeError
from modelyard.checks.usual import WINDOW
from modelyard.inference import Bundle
from modelyard.serving.guards.extraction import Likeness
from modelyard.serving.guards.policy import Extraction
from modelyard.serving.parsed import Parsed, joined
from modelyard.serving.told import say, speaking, voice_here
from modelyard.serving.validate import Validator

if TYPE_CHECKING:
    import numpy as np

    from modelyard.serving.asked import Asked

    Array = np.ndarray[Any, Any]

__all__ = ["Asking"]

# Callers that are kept.
_CALLERS = 256
# Rows of one request that are taken, and new ones of a caller before it is scored again.
_ROWS = 64
_NEW = 32
# Characters of a text that are kept; of a longer one its length and hash.
_TEXT = 200
# Callers that are scored at once, and seconds for which nothing further is said of one, or it is limited.
_AT_ONCE = 8
_HOUR = 3600.0
# After a look that did not wait for the second, so many times as long without one.
_RESTS = 20.0
# Seconds until the next try where there was no thread for it.
_AGAIN = 1.0

# Numbers and texts of some rows of one request; either may have no columns.
Rows = tuple["Array", list[list[str]]]


class _Part(NamedTuple):
    """Rows of some requests that were answered together.

    Attributes:
        counts: How many of each request.
        rows: How many in all.
        data: Their numbers, as the bytes of float64.
        texts: Their texts; none where the model takes none.
    """

    counts: list[int]
    rows: int
    data: bytes
    texts: list[list[str]] | None


class _Noted:
    """Rows of one caller since the last look, the newest window of them.

    Args:
        numbers: How many numbers a row has.
    """

    __slots__ = ("_held", "_numbers", "_parts", "_requests")

    def __init__(self, numbers: int) -> None:
        self._numbers = numbers
        self._parts: deque[_Part] = deque()
        self._held = 0
        self._requests: list[Rows] | None = None

    @property
    def full(self) -> bool:
        """Whether there are the rows of a window."""
        return self._held >= WINDOW

    def add(self, part: _Part) -> None:
        """Take rows of one or more requests; those that are of no use any more go."""
        parts = self._parts
        parts.append(part)
        self._held += part.rows
        while self._held - parts[0].rows >= WINDOW:
            self._held -= parts.popleft().rows

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(texts) for _, texts in self.requests)

    @property
    def requests(self) -> list[Rows]:
        """The newest requests that have the rows of a window together; to be asked for once all is noted."""
        if self._requests is None:
            self._requests = self._cut()
        return self._requests

    def _cut(self) -> list[Rows]:
        import numpy as np

        found: list[Rows] = []
        count = 0
        for part in reversed(self._parts):
            numbers = np.frombuffer(part.data, np.float64).reshape(part.rows, self._numbers)
            end = part.rows
            for rows in reversed(part.counts):
                if count >= WINDOW:
                    break
                some = slice(end - rows, end)
                texts = [[] for _ in range(rows)] if part.texts is None else part.texts[some]
                # A copy: the rest of the part is to go.
                found.append((np.array(numbers[some]), texts))
                count, end = count + rows, end - rows
        return found[::-1]


Taken = dict[str, _Noted]


class _Caller:
    """What is known of one."""

    __slots__ = ("new", "rows")

    def __init__(self) -> None:
        self.rows: deque[tuple[list[float], list[str]]] = deque(maxlen=WINDOW)
        self.new = 0


class Asking:
    """Watches callers for what looks like copying the model.

    Args:
        bundle: The bundle; rows are held against its profile.
        validator: Says what the rows of a request are.
        declared: From which score on, and what is done.
        decide: Counts by guard and by what was done.
        clock: Source of the time.

    Raises:
        ServeError: The bundle has no profile, or one that does not say enough to limit somebody (`guard-unusable`).
    """

    def __init__(
        self,
        bundle: Bundle,
        validator: Validator,
        declared: Extraction,
        decide: Callable[..., None],
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        if not bundle.profile.get("features"):
            raise ServeError(
                "guard-unusable",
                "`extraction` needs a profile of the training data, and the bundle has none",
                hint="train again: `modelyard run` adds it",
            )
        self._likeness = Likeness(bundle.profile, bundle.signature)
        if not self._likeness.whole:
            _halved(declared.do)
        self._validator = validator
        self._numbers, self._categories = len(validator.numbers), len(validator.categories)
        self._declared = declared
        self._decide = decide
        self._clock = clock
        self._voice = voice_here()
        self._taken: Taken = {}
        self._callers: OrderedDict[str, _Caller] = OrderedDict()
        self._busy = threading.Lock()
        # Caller -> until when nothing further is said of it, or it is limited.
        self._until: dict[str, float] = {}
        # When somebody may be looked at before the second is over.
        self._sooner = 0.0 if declared.do == "limit" else inf

    def note(self, caller: str, parsed: Parsed) -> None:
        """Take a request that was answered; in the event loop, and cheap."""
        self._note(caller, [parsed], [parsed.count])

    def note_all(self, group: Sequence[Asked], rows: int) -> None:
        """Take the requests of a group that fit, all of which are answered.

        Args:
            group: The requests.
            rows: Rows of those that fit.
        """
        every = [asked.parsed for asked in group]
        callers = [asked.exchange.head.caller for asked in group]
        counts = [parsed.count for parsed in every]
        if sum(counts) == rows and callers.count(callers[0]) == len(callers):
            self._note(callers[0], every, counts)
            return
        shares: dict[str, list[Parsed]] = {}
        for caller, parsed in zip(callers, every, strict=True):
            if parsed.error is None:
                shares.setdefault(caller, []).append(parsed)
        for caller, share in shares.items():
            self._note(caller, share, [parsed.count for parsed in share])

    def note_alone(self, callers: list[str], parsed: Parsed) -> None:
        """Take requests of one row each, all of which are answered.

        Args:
            callers: Who asked, of each.
            parsed: Their rows.
        """
        first, count = callers[0], len(callers)
        if callers.count(first) == count:
            self._note(first, [parsed], [1] * count)
            return
        shares: dict[str, list[int]] = {}
        for at, caller in enumerate(callers):
            shares.setdefault(caller, []).append(at)
        width, packed, texts = 8 * self._numbers, parsed.packed, parsed.categories
        for caller, places in shares.items():
            numbers = None if packed is None else b"".join([packed[at * width : (at + 1) * width] for at in places])
            share = Parsed(len(places), numbers, None if texts is None else texts[places])
            self._note(caller, [share], [1] * len(places))

    def limited(self, caller: str) -> float:
        """Return the seconds for which a caller gets no answers; 0 if it does."""
        if self._declared.do != "limit" or caller not in self._until:
            return 0.0
        return max(0.0, self._until[caller] - self._clock())

    def take(self) -> Taken:
        """Return what was noted since the last time; in the event loop."""
        taken, self._taken = self._taken, {}
        return taken

    def look(self, taken: Taken) -> None:
        """Score callers of whom enough is new; in any thread. What comes while another look lasts is left out."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            for caller, noted in taken.items():
                self._keep(caller, noted)
            now = self._clock()
            self._until = {caller: until for caller, until in self._until.items() if until > now}
            due = [(known.new, caller) for caller, known in self._callers.items() if known.new >= _NEW]
            for _, caller in sorted(due, reverse=True)[:_AT_ONCE]:
                self._score(caller, now)
        finally:
            self._busy.release()

    def _note(self, caller: str, group: list[Parsed], counts: list[int]) -> None:
        """Take requests of one caller, of so many rows each."""
        noted = self._taken.get(caller)
        if noted is None:
            if len(self._taken) >= _CALLERS:
                return
            noted = self._taken[caller] = _Noted(self._numbers)
        if max(counts) > _ROWS:
            for parsed in group:
                noted.add(self._some(parsed))
        else:
            data = joined(group) if self._numbers else b""
            texts = self._texts([parsed.categories for parsed in group]) if self._categories else None
            noted.add(_Part(counts, sum(counts), data, texts))
        if noted.full and self._clock() >= self._sooner:
            self._sooner = inf
            taken = {caller: self._taken.pop(caller)}
            try:
                asyncio.get_running_loop().run_in_executor(None, self._look_sooner, taken)
            except RuntimeError:
                # No thread is to be had; what was asked is answered all the same.
                self._sooner = self._clock() + _AGAIN

    def _look_sooner(self, taken: Taken) -> None:
        # What it takes itself: where others use the cores, a look lasts longer and costs no more.
        began = time.thread_time()
        try:
            self.look(taken)
        finally:
            self._sooner = self._clock() + _RESTS * (time.thread_time() - began)

    def _some(self, parsed: Parsed) -> _Part:
        """Return rows of a request at equal steps; copies, so that nothing else of it stays."""
        some = slice(None, None, max(1, -(-parsed.count // _ROWS)))
        numbers, categories = self._validator.numbers_of(parsed), parsed.categories
        rows = len(range(parsed.count)[some])
        data = b"" if numbers is None else numbers[some].astype("float64").tobytes()
        texts = None if categories is None else self._texts([categories[some]])
        return _Part([rows], rows, data, texts)

    def _texts(self, given: Sequence[Any]) -> list[list[str]]:
        """Return the texts of rows as they are kept."""
        rows: list[list[str]] = [row for categories in given for row in categories.tolist()]
        if max(map(len, chain.from_iterable(rows))) <= _TEXT:
            return rows
        return [[_told(text) for text in row] for row in rows]

    def _keep(self, caller: str, noted: _Noted) -> None:
        known = self._callers.pop(caller, None) or _Caller()
        self._callers[caller] = known
        if len(self._callers) > _CALLERS:
            self._callers.popitem(last=False)
        for numbers, texts in noted.requests:
            known.rows.extend(zip(numbers.tolist(), texts, strict=True))
        known.new += noted.count

    def _score(self, caller: str, now: float) -> None:
        import numpy as np

        known = self._callers[caller]
        known.new = 0
        rows = list(known.rows)
        numeric: Any = np.array([row[0] for row in rows], np.float64) if rows[0][0] else None
        texts: Any = np.array([row[1] for row in rows], object) if rows[0][1] else None
        signs = self._likeness.score(numeric, texts)
        sign = max(signs, key=lambda name: signs[name], default="")
        if not sign or signs[sign] <= self._declared.score or caller in self._until:
            return
        self._until[caller] = now + _HOUR
        known.rows.clear()
        self._decide("extraction", self._declared.do)
        then = ", and it is limited for an hour" if self._declared.do == "limit" else ""
        with speaking(self._voice):
            say(f"guards: `{caller}` asks as if to copy the model ({sign} {signs[sign]:.2f}){then}", level="warning")


def _told(text: str) -> str:
    return text if len(text) <= _TEXT else f"{len(text)} {hash(text)}"


def _halved(do: str) -> None:
    """Refuse to limit by half of the signs, and say so where nobody is limited.

    Raises:
        ServeError: Callers would be limited (`guard-unusable`).
    """
    what = f"the bundle does not say how near to each other rows of training are, of which it takes {WINDOW} at least"
    if do == "limit":
        raise ServeError(
            "guard-unusable",
            f"`extraction` cannot limit callers: {what}",
            hint="train again: `modelyard run` adds it; or use `do: warn`",
        )
    say(f"guards: `extraction` only sees rows all over the ranges: {what}; train again", level="warning")
