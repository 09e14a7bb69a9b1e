"""Time zones: from what the wall clock shows to moments and back, over both clock changes.

When clocks go forward, some times of the wall clock do not exist; when they go back, some exist twice. `instant` gives
each one moment (a missing time: the first moment after the gap; a doubled one: the first of the two), `instants` all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from modelyard._kit.errors import near
from modelyard._kit.times.wrong import Wrong

__all__ = ["DAY", "Zone", "instant", "instants", "offset", "pieces", "wall", "zone"]

Zone = tzinfo
DAY = 86_400

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - a wall clock has no zone
# What people write for a place: a letter code is not unique and knows no clock changes.
_PLACES = {
    "BST": "Europe/London",
    "CDT": "America/Chicago",
    "CEST": "Europe/Berlin",
    "CST": "America/Chicago",
    "EDT": "America/New_York",
    "IST": "Asia/Kolkata",
    "JST": "Asia/Tokyo",
    "MDT": "America/Denver",
    "PDT": "America/Los_Angeles",
    "PST": "America/Los_Angeles",
}


def zone(name: str) -> Zone:
    """Return a time zone by its name in the IANA database.

    Raises:
        Wrong: There is none of this name; the hint has the near ones.
    """
    import zoneinfo

    if name == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Wrong(f'there is no time zone "{name}"', _near_zone(name, zoneinfo.available_timezones())) from None


def _near_zone(name: str, known: set[str]) -> str:
    if name.upper() in _PLACES:
        return f"name a place, which knows its clock changes: `{_PLACES[name.upper()]}`"
    if any(sign.isdigit() for sign in name) and name[:1] in "+-UuGgZz":
        return "name a place, which knows its clock changes, or `UTC`; for example `Europe/Berlin`"
    plain = {k.lower(): k for k in sorted(known)}
    last = {k.rpartition("/")[2].lower(): k for k in sorted(known, reverse=True) if "/" in k}
    wanted = name.lower().replace(" ", "_")
    exact = [names[wanted] for names in (plain, last) if wanted in names]
    close = exact or [plain[k] for k in near(wanted, plain)] or [last[k] for k in near(wanted, last)]
    if close:
        return "did you mean " + " or ".join(f"`{c}`" for c in dict.fromkeys(close)) + "?"
    return "name it as the IANA database does: for example `Europe/Berlin`, `America/New_York`, `UTC`"


def offset(at: float, zone: Zone) -> int:
    """Return by how many seconds the clocks of a zone are ahead of UTC at a moment."""
    ahead = datetime.fromtimestamp(math.floor(at), UTC).astimezone(zone).utcoffset()
    assert ahead is not None  # noqa: S101 - every zone of ours knows its offset
    return round(ahead.total_seconds())


def wall(at: float, zone: Zone) -> datetime:
    """Return what the clock on the wall shows at a moment, to the second."""
    return datetime.fromtimestamp(math.floor(at), UTC).astimezone(zone).replace(tzinfo=None, fold=0)


def instants(shown: datetime, zone: Zone) -> tuple[float, ...]:
    """Return every moment at which the clock shows this: none in a gap, two where it was put back."""
    first, second = _both(shown, zone)
    return tuple(at for at in dict.fromkeys((first, second)) if wall(at, zone) == shown)


def instant(shown: datetime, zone: Zone) -> float:
    """Return the moment at which the clock first shows this, or the first moment after the gap that it falls into."""
    first, second = _both(shown, zone)
    if first <= second:
        return first
    # In a gap the clock before it gives the later moment, the clock after it the earlier one; the change lies between.
    return _change(second, first, zone)


def _both(shown: datetime, zone: Zone) -> tuple[float, float]:
    """Return the moment by the clock before a change, and by the clock after it; equal where there is none."""
    local = shown.replace(tzinfo=zone)
    return local.replace(fold=0).timestamp(), local.replace(fold=1).timestamp()


def _change(low: float, high: float, zone: Zone) -> float:
    """Return the first whole second after `low`, up to `high`, whose offset is not that of `low`."""
    a, b = math.floor(low), math.ceil(high)
    before = offset(a, zone)
    while b - a > 1:
        middle = (a + b) // 2
        a, b = (middle, b) if offset(middle, zone) == before else (a, middle)
    return float(b)


def pieces(zone: Zone, begin: float, end: float) -> Iterator[tuple[float, float, int]]:
    """Yield the stretches between two moments in which the clock runs evenly: begin, end, seconds ahead of UTC."""
    at, start, ahead = begin, begin, offset(begin, zone)
    while at < end:
        # No zone changes its clocks twice within a day and back again, so a look a day misses nothing.
        after = min(at + DAY, end)
        if offset(after, zone) == ahead:
            at = after
            continue
        at = _change(at, after, zone)
        if at < end:
            yield start, at, ahead
            start, ahead = at, offset(at, zone)
    if start < end:
        yield start, end, ahead


def seconds_of(shown: datetime) -> int:
    """Return the seconds that a clock which never changes would have run since 1970 to show this."""
    return (shown - _EPOCH) // timedelta(seconds=1)
