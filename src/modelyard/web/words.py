"""How times, durations and amounts read on the pages."""

from __future__ import annotations

from modelyard._kit.clock import as_text
from modelyard._kit.text import number, seconds_text

__all__ = ["ago", "brief", "coming", "hours", "money"]

_AGES = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (86400 * 45, 86400, "d"))


def ago(seconds: float, now: float) -> str:
    """Return how long ago a time was, e.g. `3 min ago`; a date after 45 days.

    >>> ago(1000, 1002), ago(1000, 1200), ago(0, 86400 * 3)
    ('just now', '3 min ago', '3 d ago')
    """
    age = now - seconds
    if age < 5:
        return "just now"
    for below, unit, word in _AGES:
        if age < below:
            return f"{int(age // unit)} {word} ago"
    return as_text(seconds)[:10]


def coming(seconds: float, now: float) -> str:
    """Return how far ahead a time is, e.g. `in 3 min`; `now` once it has come.

    >>> coming(1200, 1000), coming(86400 * 3, 0), coming(5, 10)
    ('in 3 min', 'in 3 d', 'now')
    """
    ahead = seconds - now
    if ahead < 1:
        return "now"
    for below, unit, word in _AGES:
        if ahead < below:
            return f"in {int(ahead // unit)} {word}"
    return as_text(seconds)[:10]


def money(amount: float | None) -> str:
    """Return an amount of money as a person reads it; the currency stands beside it.

    >>> money(12.3456), money(0.0385), money(0.00001), money(0.0), money(1234.5)
    ('12.35', '0.0385', '< 0.0001', '0', '1,234.50')
    """
    if amount is None:
        return ""
    if amount == 0:
        return "0"
    if 0 < amount < 0.00005:
        return "< 0.0001"
    return f"{amount:,.2f}" if abs(amount) >= 1 else f"{amount:.4f}".rstrip("0").rstrip(".")


def hours(seconds: float) -> str:
    """Return a sum of seconds, in hours from two of them on.

    >>> hours(31496), hours(95)
    ('8.75 h', '1 min 35 s')
    """
    return f"{number(seconds / 3600, digits=3)} h" if seconds >= 7200 else seconds_text(seconds)


def brief(seconds: float) -> str:
    """Return a duration for where there is little room.

    >>> brief(0.31), brief(3.104), brief(14.2), brief(1567)
    ('310 ms', '3.1 s', '14 s', '26 min')
    """
    if seconds < 1:
        return seconds_text(seconds)
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
