"""What comes again every week, read off the wall clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from modelyard._kit.times.zones import DAY, Zone, pieces, seconds_of

__all__ = ["DAYS", "WEEK", "of_week", "weekly"]

WEEK = 7 * DAY
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# 1970 began on a Thursday; weeks begin on Monday.
_MONDAY = 3 * DAY

T = TypeVar("T")


def of_week(shown: datetime) -> int:
    """Return the seconds from Monday 00:00 to what the clock shows."""
    return (seconds_of(shown) + _MONDAY) % WEEK


def weekly(
    zone: Zone, begin: float, end: float, marks: Sequence[tuple[int, int, T]]
) -> Iterator[tuple[float, float, T]]:
    """Yield the stretches of a weekly pattern between two moments, in order.

    Args:
        zone: Whose wall clock it is read off.
        begin: First moment.
        end: Last moment, not included.
        marks: From and to, seconds from Monday 00:00, and what holds there; sorted, without overlap.
    """
    for since, until, ahead in pieces(zone, begin, end):
        shift = ahead + _MONDAY
        week = (since + shift) // WEEK
        while week * WEEK - shift < until:
            base = week * WEEK - shift
            for first, last, value in marks:
                a, b = max(since, base + first), min(until, base + last)
                if a < b:
                    yield a, b, value
            week += 1
