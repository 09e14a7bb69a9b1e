"""Keep the newest rows of each caller, and score them now and then, off the way of the answers.

Memory is bounded: so many rows of so many callers, those that have not asked for longest go first. Of a request only
the rows that are looked at are kept, however many it brought, and of a long text only what tells it from others.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ServeError
from modelyard.checks.usual import WINDOW
from modelyard.inference import Bundle
from modelyard.serving.guards.extraction import Likeness
from modelyard.serving.guards.policy import Extraction
from modelyard.serving.parsed import Parsed
from modelyard.serving.told import say
from modelyard.serving.validate import Validator

if TYPE_CHECKING:
    import numpy as np

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

# Numbers and texts of some rows of one request; either may have no columns.
Rows = tuple["Array", list[list[str]]]


class _Noted:
    """Rows of one caller since the last look, the newest window of them."""

    __slots__ = ("count", "requests")

    def __init__(self) -> None:
        self.requests: deque[Rows] = deque()
        self.count = 0

    def add(self, rows: Rows) -> None:
        self.requests.append(rows)
        self.count += len(rows[1])
        while self.count - len(self.requests[0][1]) >= WINDOW:
            self.count -= len(self.requests.popleft()[1])


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
        import numpy as np

        self._np = np
        self._likeness = Likeness(bundle.profile, bundle.signature)
        if not self._likeness.whole:
            _halved(declared.do)
        self._validator = validator
        self._declared = declared
        self._decide = decide
        self._clock = clock
        self._taken: Taken = {}
        self._callers: OrderedDict[str, _Caller] = OrderedDict()
        self._busy = threading.Lock()
        # Caller -> until when nothing further is said of it, or it is limited.
        self._until: dict[str, float] = {}

    def note(self, caller: str, parsed: Parsed) -> None:
        """Take a request that was answered; in the event loop, and cheap."""
        noted = self._taken.get(caller)
        if noted is None:
            if len(self._taken) >= _CALLERS:
                return
            noted = self._taken[caller] = _Noted()
        noted.add(self._rows(parsed))

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

    def _rows(self, parsed: Parsed) -> Rows:
        """Return rows of a request at equal steps; copies, so that nothing else of it stays."""
        some = slice(None, None, max(1, -(-parsed.count // _ROWS)))
        numbers, texts = self._validator.numbers_of(parsed), parsed.categories
        if texts is None:
            told: list[list[str]] = [[] for _ in range(parsed.count)[some]]
        else:
            told = [[_told(text) for text in row] for row in texts[some].tolist()]
        given = self._np.empty((len(told), 0)) if numbers is None else self._np.array(numbers[some], self._np.float64)
        return given, told

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
