"""When something is due: by cron, at an interval, once, or by the words of a calendar.

Clock changes. A time of day that does not exist is due once, at the first moment after the gap; one that exists twice
is due once, at the first. A cron line that leaves out no hour (`*/15 * * * *`, `0 * * * *`) is an interval: it is due
whenever the clock shows such a minute, so that no real interval is missing and none comes double. An interval runs in
real time, except that one of whole days keeps its time of day.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Protocol

from modelyard._kit.times.cron import cron
from modelyard._kit.times.dates import Dates
from modelyard._kit.times.days import calendar
from modelyard._kit.times.moments import local_of, moment
from modelyard._kit.times.wrong import Wrong
from modelyard._kit.times.zones import DAY, Zone, instant, instants, offset, wall

__all__ = ["Recurrence", "recurrence", "upcoming"]

# A leap day on a given day of the week comes after 40 years at the latest (2072 to 2112 over 2100).
_MOST_DAYS = 41 * 366
# Intervals are counted from the first midnight of 2001, a Monday.
_ANCHOR = datetime(2001, 1, 1)  # noqa: DTZ001 - a wall clock has no zone


class Recurrence(Protocol):
    """The moments at which something is due, in order."""

    def after(self, at: float) -> float:
        """Return the first moment after another; `inf` if there is none."""
        ...

    def last(self, at: float) -> float:
        """Return the last moment up to another, that one included; `-inf` if there is none."""
        ...

    def count(self, after: float, upto: float) -> int:
        """Return how many moments there are after one and up to another, that one included."""
        ...


def recurrence(
    *,
    at: str = "",
    every: float = 0.0,
    once: str = "",
    calendar_words: str = "",
    begin: str = "",
    zone: Zone,
    skip: Dates | None = None,
) -> Recurrence:
    """Return a recurrence from what the file says; exactly one of the first four is given.

    Args:
        at: A cron line.
        every: An interval, seconds.
        once: A date with a time.
        calendar_words: Words of a calendar.
        begin: Date with a time from which on it is due; an interval is counted from it.
        zone: Whose clocks they are read by.
        skip: Days on which nothing is due.

    Raises:
        Wrong: A text cannot be read, or it is never due.
    """
    skip = skip or Dates()
    since = moment(begin, zone) if begin else -math.inf
    found: Recurrence
    if once:
        return _Once(moment(once, zone))
    if every:
        found = _interval(every, begin, zone)
    elif calendar_words:
        fits, seconds = calendar(calendar_words, skip)
        found = _OfDays(fits, (seconds,), zone)
    else:
        line = cron(at)
        found = _OfDays(line.on, line.seconds, zone, real=line.every_hour)
    if skip:
        found = _Skipping(found, skip, zone)
    return found if since == -math.inf else _Since(found, since)


def upcoming(what: Recurrence, after: float, most: int) -> Iterator[float]:
    """Yield the next moments, at most so many."""
    for _ in range(most):
        after = what.after(after)
        if after == math.inf:
            return
        yield after


def _interval(seconds: float, begin: str, zone: Zone) -> Recurrence:
    if seconds < 1 or seconds % 1:
        raise Wrong("an interval is a whole number of seconds, at least one", "for example `every: 15m`")
    anchor = local_of(begin) if begin else _ANCHOR
    if anchor.tzinfo is not None:
        anchor = wall(anchor.timestamp(), zone)
    if seconds % DAY:
        start = moment(begin, zone) if begin else instant(_ANCHOR, zone)
        return _Interval(int(seconds), start)
    step = int(seconds) // DAY
    first = anchor.date().toordinal()
    return _OfDays(
        lambda day: (day.toordinal() - first) % step == 0, ((anchor - _midnight(anchor.date())).seconds,), zone
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())


@dataclass(frozen=True, slots=True)
class _Once:
    """One moment."""

    moment: float

    def after(self, at: float) -> float:
        return self.moment if self.moment > at else math.inf

    def last(self, at: float) -> float:
        return self.moment if self.moment <= at else -math.inf

    def count(self, after: float, upto: float) -> int:
        return int(after < self.moment <= upto)


@dataclass(frozen=True, slots=True)
class _Interval:
    """Every so many seconds of real time."""

    seconds: int
    anchor: float

    def after(self, at: float) -> float:
        return self.anchor + (math.floor((at - self.anchor) / self.seconds) + 1) * self.seconds

    def last(self, at: float) -> float:
        return self.anchor + math.floor((at - self.anchor) / self.seconds) * self.seconds

    def count(self, after: float, upto: float) -> int:
        return max(0, round((self.last(upto) - self.last(after)) / self.seconds))


class _OfDays:
    """Times of the day, on the days that fit.

    Args:
        fits: Whether a day fits.
        seconds: The times, seconds from midnight, sorted.
        zone: Whose clocks they are read by.
        real: Whether it is due whenever the clock shows such a time, and not in a gap.
    """

    def __init__(self, fits: Callable[[date], bool], seconds: Sequence[int], zone: Zone, *, real: bool = False) -> None:
        self._fits = fits
        self._seconds = seconds
        self._zone = zone
        self._real = real
        self._known: dict[date, tuple[float, ...]] = {}

    def after(self, at: float) -> float:
        day = wall(at, self._zone).date() - timedelta(days=1)
        for _ in range(_MOST_DAYS):
            if (found := self._first(day, at)) < math.inf:
                # Clocks that are put back over midnight show the end of a day again after the next one has begun.
                return min(found, self._first(day + timedelta(days=1), at))
            day += timedelta(days=1)
        return math.inf

    def last(self, at: float) -> float:
        day = wall(at, self._zone).date() + timedelta(days=1)
        for _ in range(_MOST_DAYS):
            if (found := self._newest(day, at)) > -math.inf:
                return max(found, self._newest(day - timedelta(days=1), at))
            if day.year < 1970:
                break
            day -= timedelta(days=1)
        return -math.inf

    def count(self, after: float, upto: float) -> int:
        if upto <= after:
            return 0
        day = wall(after, self._zone).date() - timedelta(days=1)
        end = wall(upto, self._zone).date() + timedelta(days=1)
        total, newest = 0, -math.inf
        while day <= end:
            moments = self._of(day)
            low = bisect_right(moments, after)
            high = bisect_right(moments, upto)
            total += high - low
            if high > low:
                # Two days may share the first moment after a gap over midnight.
                total -= moments[low] == newest
                newest = moments[high - 1]
            day += timedelta(days=1)
        return total

    def _first(self, day: date, at: float) -> float:
        moments = self._of(day)
        place = bisect_right(moments, at)
        return moments[place] if place < len(moments) else math.inf

    def _newest(self, day: date, at: float) -> float:
        moments = self._of(day)
        place = bisect_right(moments, at)
        return moments[place - 1] if place else -math.inf

    def _of(self, day: date) -> tuple[float, ...]:
        """Return the moments of one day, in order."""
        if not self._fits(day):
            return ()
        known = self._known.get(day)
        if known is None:
            if len(self._known) >= 8:
                self._known.clear()
            known = self._known[day] = tuple(self._moments(day))
        return known

    def _moments(self, day: date) -> Iterable[float]:
        midnight = _midnight(day)
        begin, end = instant(midnight, self._zone), instant(midnight + timedelta(days=1), self._zone)
        # A change soon after midnight shows the end of this day a second time.
        if end - begin == DAY and offset(begin, self._zone) == offset(end + DAY / 8, self._zone):
            return (begin + s for s in self._seconds)
        shown = [midnight + timedelta(seconds=s) for s in self._seconds]
        if self._real:
            return sorted({at for each in shown for at in instants(each, self._zone)})
        return sorted({instant(each, self._zone) for each in shown})


@dataclass(frozen=True, slots=True)
class _Since:
    """Another recurrence, from a moment on."""

    inner: Recurrence
    begin: float

    def after(self, at: float) -> float:
        # The beginning itself may be due.
        return self.inner.after(max(at, self.begin - 0.5))

    def last(self, at: float) -> float:
        found = self.inner.last(at)
        return found if found >= self.begin else -math.inf

    def count(self, after: float, upto: float) -> int:
        return self.inner.count(max(after, self.begin - 0.5), upto)


class _Skipping:
    """Another recurrence without some days."""

    def __init__(self, inner: Recurrence, skip: Dates, zone: Zone) -> None:
        self._inner = inner
        self._skip = skip
        self._zone = zone

    def after(self, at: float) -> float:
        end = at + _MOST_DAYS * DAY
        while at < end:
            found = self._inner.after(at)
            if found == math.inf or (day := wall(found, self._zone).date()) not in self._skip:
                return found
            at = self._end(day) - 0.5
        return math.inf

    def last(self, at: float) -> float:
        end = at - _MOST_DAYS * DAY
        while at > end:
            found = self._inner.last(at)
            if found == -math.inf or (day := wall(found, self._zone).date()) not in self._skip:
                return found
            at = instant(_midnight(day), self._zone) - 0.5
        return -math.inf

    def count(self, after: float, upto: float) -> int:
        total = self._inner.count(after, upto)
        days = self._skip.between(wall(after, self._zone).date(), wall(upto, self._zone).date())
        for day in days:
            begin = max(after, instant(_midnight(day), self._zone) - 0.5)
            total -= self._inner.count(begin, min(upto, self._end(day) - 0.5))
        return total

    def _end(self, day: date) -> float:
        return instant(_midnight(day + timedelta(days=1)), self._zone)
