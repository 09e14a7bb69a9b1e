"""Find the highest rate that a server holds: double the rate until it does not, then bisect.

Far below the knee a glance is enough: a few requests say that there is more to come. What is told as the knee was asked
for whole steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

import msgspec

from modelyard._kit.clock import Clock
from modelyard.serving.load.measured import Measured

__all__ = ["Knee", "find", "idle", "starting_rate"]

# Figures are as exact as this: a rate that holds and one that does not are at most so far apart.
_EXACT = 1.04
# What of the time goes to one step, and at most; the last word takes two.
_STEP, _LONGEST = 1 / 24, 1 / 12
# Steps have at least so many requests, or the slowest of a hundred is not known.
_FEWEST = 200
# A step lasts at least so many times the limit: at a rate a twentieth too high, a queue grows beyond it meanwhile.
_LIMITS = 20
# A glance has so many requests; and it lasts so many times the limit: at twice the rate that a server holds, most of
# what comes meanwhile is late.
_GLANCED, _GLANCE_LIMITS = 30, 4
# A client that takes so much of its core has become what is measured.
BUSY = 0.85
# The lowest rate that is tried.
_LEAST = 1.0

# How an idle server is asked: at first, and then for a fifth of its time, for so many requests and seconds.
_FIRST_RATE, _FIRST_SECONDS = 10.0, 1.0
_IDLE_RATE, _IDLE_SHARE, _IDLE_ASKED, _IDLE_SECONDS = 50.0, 0.2, 40, (2.0, 8.0)

Offer = Callable[[float, float], Awaitable[Measured]]


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server stops holding its limits.

    Attributes:
        at: What was measured at the highest rate that held; none if none did.
        beyond: Lowest rate that did not hold; none if all did. Where the time ended the search, it may have failed at a
            glance only.
        limited: What ended the search before the server did: `client`, `connections`, `most`, `time`; empty: the server
            did.
        steps: All that was measured, in order.
    """

    at: Measured | None
    beyond: float | None
    limited: str
    steps: tuple[Measured, ...]


async def idle(offer: Offer) -> Measured:
    """Return what was measured while hardly anything was asked, however long an answer takes.

    Args:
        offer: Offers a rate for some seconds.
    """
    found = await offer(_FIRST_RATE, _FIRST_SECONDS)
    if found.p50 is None:
        return found
    rate = min(max(_IDLE_SHARE / found.p50, _LEAST), _IDLE_RATE)
    least, most = _IDLE_SECONDS
    later = await offer(rate, min(max(_IDLE_ASKED / rate, least), most))
    # Moments are drawn: so few may be none.
    return later if later.sent else found


def starting_rate(idle_p50: float) -> float:
    """Return a rate that leaves a server idle nine tenths of the time, from how long it takes for one answer."""
    return min(max(0.1 / idle_p50, 5.0), 1000.0)


async def find(
    offer: Offer,
    *,
    first: float,
    p99: float,
    errors: float,
    seconds: float,
    most: float = math.inf,
    clock: Clock = time.monotonic,
) -> Knee:
    """Find the knee.

    Where to look is found by glances, at rates that double. They decide no more than that: from a rate that passes one
    and does not hold the search goes down, and one that does not pass is tried once more, for whole steps, before
    the search ends below it.

    What else the machine does for a moment must not decide. So a rate fails when it fails twice; the lowest rate that
    failed is tried once more when all others are known; and the rate that is returned held once more, for twice as
    long, so that it is not the luckiest of several.

    Args:
        offer: Offers a rate for some seconds.
        first: First rate that is glanced at, requests a second.
        p99: Seconds within which 99 of 100 answers must come.
        errors: Share of the requests that may stay without a 200.
        seconds: Time for all of it.
        most: Highest rate that is tried.
        clock: Source of the time; need not be that of the wall.
    """
    search = _Search(offer, p99, errors, seconds, clock)
    low: float | None = None
    sure, limited = False, ""
    first, high = await _near(search, min(first, most), most)
    while not sure:
        if search.short:
            limited = "time"
            break
        rate = _next(low, high, first, most)
        if rate < _LEAST:
            break
        if await search.holds(rate):
            low = rate
            if high is not None and rate >= high:
                high = None
            if rate >= most:
                limited = "most"
                break
        else:
            sure = rate == high
            high = rate
    at = None
    # Of one that none but a glance was passed at before the time was short, less is known: then further down.
    rate, lower = (low, _EXACT) if low is not None else (_next(low, high, first, most), 2.0)
    while rate >= _LEAST and at is None:
        if search.over:
            at, limited = search.best(below=high), "time"
            break
        if await search.holds(rate, times=2):
            at = search.steps[-1]
        else:
            high, rate = rate, rate / lower
    return Knee(at=at, beyond=high, limited=search.held_back or limited, steps=tuple(search.steps))


async def _near(search: _Search, rate: float, most: float) -> tuple[float, float | None]:
    """Return the highest of rates that double or halve that looks as if it held, and the next if it does not."""
    if await search.glance(rate):
        while rate < most and not search.late:
            if not await search.glance(min(rate * 2, most)):
                return rate, min(rate * 2, most)
            rate = min(rate * 2, most)
        return rate, None
    while rate / 2 >= _LEAST and not search.late:
        rate /= 2
        if await search.glance(rate):
            return rate, rate * 2
    return rate, None


def _next(low: float | None, high: float | None, first: float, most: float) -> float:
    """Return the rate to try between one that held and one that did not; `high` itself when they are close."""
    if high is None:
        return first if low is None else min(low * 2, most)
    if low is None:
        return first if first < high else high / 2
    return math.sqrt(low * high) if high / low > _EXACT else high


class _Search:
    """Steps of one search, and the time they have."""

    def __init__(self, offer: Offer, p99: float, errors: float, seconds: float, clock: Clock) -> None:
        self._offer = offer
        self._p99, self._errors = p99, errors
        self.step = min(max(seconds * _STEP, _LIMITS * p99, 0.25), seconds * _LONGEST)
        self._clock = clock
        self._until = clock() + seconds
        self._late = self._until - seconds / 2
        self.steps: list[Measured] = []
        # Those that held for a whole step.
        self._held: list[Measured] = []
        # What of the client kept the last rate from holding: `client`, `connections`; empty: nothing.
        self.held_back = ""

    @property
    def late(self) -> bool:
        """Whether the other half of the time is needed for whole steps."""
        return self._clock() > self._late

    @property
    def short(self) -> bool:
        """Whether there is no time for more than the last word."""
        return self._until - self._clock() < 5 * self.step

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._clock() > self._until

    def best(self, *, below: float | None) -> Measured | None:
        """Return the highest rate that held once for a whole step, below one that did not."""
        good = [step for step in self._held if below is None or step.rate < below]
        return max(good, key=lambda step: step.rate, default=None)

    async def glance(self, rate: float) -> bool:
        """Say whether it looks as if a rate held, from a few requests."""
        seconds = min(max(_GLANCED / rate, min(_GLANCE_LIMITS * self._p99, self.step / 2), 0.25), self.step)
        return await self._try(rate, seconds, roughly=True) is not None

    async def holds(self, rate: float, *, times: int = 1) -> bool:
        """Say whether a rate holds for so many times a step, at the first or the second attempt."""
        # Long enough to know the slowest of a hundred.
        seconds = min(max(times * self.step, _FEWEST / rate), 4 * self.step)
        found = await self._try(rate, seconds)
        self._held += [found] if found is not None else []
        return found is not None

    async def _try(self, rate: float, seconds: float, *, roughly: bool = False) -> Measured | None:
        """Return what was measured where a rate holds at the first or the second attempt, or none."""
        for _ in range(2):
            found = await self._offer(rate, seconds)
            self.steps.append(found)
            if found.holds(self._p99, self._errors, roughly=roughly):
                return found
            if found.p50 is None or found.p50 > self._p99:
                break  # half of the answers come too late: that is no bad moment
        usual = min((step.served for step in self.steps if step.served is not None), default=0.0)
        if found.client >= BUSY:
            self.held_back = "client"
        else:
            self.held_back = "connections" if found.short_of_connections(usual) else ""
        return None
