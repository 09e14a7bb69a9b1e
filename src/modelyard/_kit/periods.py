"""Hours, days, weeks and months that follow one another, each with a name of its own, in UTC.

| every | name of a period |
| --- | --- |
| `hourly` | `2026-11-20T13` |
| `daily` | `2026-11-20` |
| `weekly` | `2026-11-16`, its Monday |
| `monthly` | `2026-11` |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

__all__ = ["EVERY", "bounds", "first_of", "last_of", "newest_complete", "periods"]

EVERY = ("hourly", "daily", "weekly", "monthly")
_FORMS = {"hourly": "%Y-%m-%dT%H", "daily": "%Y-%m-%d", "weekly": "%Y-%m-%d", "monthly": "%Y-%m"}
# What people write for a moment, from the finest to the coarsest, and which period that is.
_WRITTEN = {
    "hourly": re.compile(r"[12]\d{3}-\d\d-\d\dT\d\d"),
    "daily": re.compile(r"[12]\d{3}-\d\d-\d\d"),
    "monthly": re.compile(r"[12]\d{3}-\d\d"),
}


def bounds(every: str, name: str) -> tuple[datetime, datetime]:
    """Return when a period begins and when the next one does.

    Args:
        every: `hourly`, `daily`, `weekly` or `monthly`.
        name: Name of the period.

    Raises:
        ValueError: No period of this kind has such a name.

    Examples:
        >>> [end.isoformat() for end in bounds("monthly", "2024-02")]
        ['2024-02-01T00:00:00+00:00', '2024-03-01T00:00:00+00:00']
    """
    try:
        begins = datetime.strptime(name, _FORMS[every]).replace(tzinfo=UTC)
        canonical, ends = _name(every, begins), _next(every, begins)
    except (ValueError, OverflowError) as error:
        raise ValueError(name) from error
    if canonical != name:
        raise ValueError(name)
    return begins, ends


def first_of(every: str, text: str) -> str:
    """Return the first period that a moment or a longer time touches.

    Args:
        every: Kind of the period.
        text: `2026-11-20T13`, `2026-11-20` or `2026-11`.

    Raises:
        ValueError: It is none of these.

    Examples:
        >>> first_of("hourly", "2026-11-20"), first_of("weekly", "2026-11-20"), first_of("monthly", "2026-11-20")
        ('2026-11-20T00', '2026-11-16', '2026-11')
    """
    return _name(every, _written(text)[0])


def last_of(every: str, text: str) -> str:
    """Return the last period that a moment or a longer time touches.

    Raises:
        ValueError: As `first_of`.

    Examples:
        >>> last_of("hourly", "2026-11-20"), last_of("daily", "2026-02")
        ('2026-11-20T23', '2026-02-28')
    """
    return _name(every, _written(text)[1] - timedelta(microseconds=1))


def newest_complete(every: str, now: float) -> str:
    """Return the newest period that has ended.

    Args:
        every: Kind of the period.
        now: Seconds since 1970 UTC.

    Examples:
        >>> newest_complete("daily", 86_400.0 * 31), newest_complete("monthly", 86_400.0 * 31)
        ('1970-01-31', '1970-01')
    """
    begins = _begin(every, datetime.fromtimestamp(now, UTC))
    return _name(every, begins - timedelta(microseconds=1))


def periods(every: str, first: str, last: str) -> Iterator[str]:
    """Yield the names from the first period to the last, both included.

    Raises:
        ValueError: One of them is no name of such a period.

    Examples:
        >>> list(periods("weekly", "2026-12-21", "2027-01-04"))
        ['2026-12-21', '2026-12-28', '2027-01-04']
    """
    at, end = bounds(every, first)[0], bounds(every, last)[0]
    while at <= end:
        yield _name(every, at)
        at = _next(every, at)


def _written(text: str) -> tuple[datetime, datetime]:
    for every, form in _WRITTEN.items():
        if form.fullmatch(text):
            return bounds(every, text)
    raise ValueError(text)


def _name(every: str, moment: datetime) -> str:
    return _begin(every, moment).strftime(_FORMS[every])


def _begin(every: str, moment: datetime) -> datetime:
    moment = moment.replace(minute=0, second=0, microsecond=0)
    if every == "hourly":
        return moment
    moment = moment.replace(hour=0)
    if every == "weekly":
        return moment - timedelta(days=moment.weekday())
    return moment.replace(day=1) if every == "monthly" else moment


def _next(every: str, begins: datetime) -> datetime:
    match every:
        case "hourly":
            return begins + timedelta(hours=1)
        case "daily":
            return begins + timedelta(days=1)
        case "weekly":
            return begins + timedelta(days=7)
    return begins.replace(year=begins.year + begins.month // 12, month=begins.month % 12 + 1)
