"""Moments and times of the day as people write and read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta

from modelyard._kit.errors import near
from modelyard._kit.fields import parse_duration
from modelyard._kit.times.cron import MONTHS
from modelyard._kit.times.weeks import DAYS
from modelyard._kit.times.wrong import Wrong
from modelyard._kit.times.zones import Zone, instant, wall

__all__ = ["clock_of", "deadline", "iso", "length", "local_of", "moment", "month_of", "said"]

_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOST_DEADLINE = 31 * 86_400.0
_FULL = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


def clock_of(text: str) -> int:
    """Return the seconds from midnight of a time of day: `06:30`, `noon`, `midnight`.

    Raises:
        Wrong: It is none.
    """
    word = text.strip().lower()
    if word in ("noon", "midnight"):
        return 43_200 if word == "noon" else 0
    match = _CLOCK.fullmatch(word)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise Wrong(f'"{text}" is no time of day', "write hours and minutes: for example `06:30`")
    return int(match[1]) * 3600 + int(match[2]) * 60


def local_of(text: str) -> datetime:
    """Return a date with or without a time: `2026-12-01`, `2026-12-01T03:00`, `2026-12-01 03:00:30`.

    One with an offset or `Z` keeps it; one without has no zone.

    Raises:
        Wrong: It is none.
    """
    given = text.strip()
    try:
        read = datetime.fromisoformat(given.replace("z", "Z"))
    except ValueError as error:
        hint = "write year, month, day and time: for example `2026-12-01T03:00`"
        if _DAY.match(given) and "T" not in given and not re.search(r"\d:\d", given):
            raise Wrong(f'"{text}" is no date: {error}', hint) from None
        raise Wrong(f'"{text}" is no date with a time', hint) from None
    if not _DAY.match(given) or read.microsecond or not 1970 <= read.year <= 2200:
        raise Wrong(f'"{text}" is no date with a time', "for example `2026-12-01T03:00`, from 1970 to 2200")
    return read


def moment(text: str, zone: Zone) -> float:
    """Return the moment of a date with or without a time, by its own offset or else by the clocks of a zone.

    Raises:
        Wrong: It is none.

    Examples:
        >>> moment("2026-12-01T03:00", UTC) - moment("2026-12-01T03:00+02:00", UTC)
        7200.0
    """
    read = local_of(text)
    return read.timestamp() if read.tzinfo is not None else instant(read, zone)


def deadline(text: str, zone: Zone) -> Callable[[float], float]:
    """Return the function from a due time to its deadline: `6h` after it, or the next `07:00`.

    Raises:
        Wrong: It is neither a duration nor a time of day.
    """
    if ":" in text or text.strip().lower() in ("noon", "midnight"):
        seconds = clock_of(text)

        def next_clock(due: float) -> float:
            day = wall(due, zone).date()
            while True:
                at = instant(datetime.combine(day, time()) + timedelta(seconds=seconds), zone)
                if at > due:
                    return at
                day += timedelta(days=1)

        return next_clock
    try:
        length = parse_duration(text)
    except ValueError:
        raise Wrong(
            f'"{text}" is neither a duration nor a time of day', "for example `6h` after the due time, or `07:00`"
        ) from None
    if not 0 < length <= _MOST_DEADLINE:
        raise Wrong(f'"{text}" is not between nothing and 31 days', "for example `6h`")
    return lambda due: due + length


def iso(at: float) -> str:
    """Return a moment as `2026-11-23T02:00:00Z`; a fraction of a second is kept where there is one."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="auto" if at % 1 else "seconds")
    return text.replace("+00:00", "Z")


def said(at: float, zone: Zone) -> str:
    """Return a moment as people say it: `Mon 2026-11-23 03:00 Europe/Berlin`."""
    if not math.isfinite(at):
        return "never"
    shown = wall(at, zone)
    seconds = f":{shown.second:02d}" if shown.second else ""
    return f"{DAYS[shown.weekday()]} {shown:%Y-%m-%d %H:%M}{seconds} {zone}"


def length(seconds: float) -> str:
    """Return a length of time in its two largest units: `45 s`, `1 h 30 min`, `2 d`.

    >>> length(5400), length(172800), length(0.5)
    ('1 h 30 min', '2 d', '0.5 s')
    """
    if seconds < 60:
        return f"{seconds:g} s"
    left, parts = round(seconds), []
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}")
        elif parts:
            break
    return " ".join(parts[:2])


def month_of(word: str) -> int:
    """Return the number of a month by its name or its first three letters.

    Raises:
        Wrong: It is none.
    """
    names = [m.lower() for m in MONTHS]
    if word[:3] in names and _FULL[names.index(word[:3])].startswith(word):
        return names.index(word[:3]) + 1
    close = near(word, [*names, *_FULL], most=1)
    raise Wrong(f'"{word}" is no month', f"did you mean `{close[0]}`?" if close else f"months are {', '.join(names)}")
