"""The five fields of cron, as cron itself reads them: which days, and which times of the day.

What a clock change does to them is not the business of this module: see `recurrence`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from modelyard._kit.errors import near
from modelyard._kit.times.weeks import DAYS
from modelyard._kit.times.wrong import Never, Wrong

__all__ = ["MONTHS", "Cron", "cron"]

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its name, its range, and what stands for its numbers."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    first: int = 0

    def number(self, text: str, whole: str) -> int:
        """Return the number that a text stands for."""
        if self.words and text.isalpha():
            names = [word.lower() for word in self.words]
            if text.lower() in names:
                return names.index(text.lower()) + self.first
            close = near(text.lower()[:3], names, most=1)
            raise Wrong(
                f'"{text}" is no {self.name}',
                f"did you mean `{close[0]}`?" if close else f"there is: {', '.join(names)}",
            )
        if not re.fullmatch(r"[0-9]{1,4}", text):
            raise Wrong(f'the {self.name} "{whole}" cannot be read', _extension(whole, self.name))
        if not self.low <= int(text) <= self.high:
            raise Wrong(
                f"the {self.name} is {int(text)}, and there is {self.low} to {self.high}",
                f"write a number from {self.low} to {self.high}",
            )
        return int(text)


# Sunday is 0 and 7. Weekdays are counted as cron does, from Sunday, until they are turned at the end.
_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, MONTHS, 1),
    _Field("day of the week", 0, 7, (DAYS[6], *DAYS[:6])),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line.

    Attributes:
        text: As it was written.
        minutes: Of the hour, sorted.
        hours: Of the day, sorted.
        days: Of the month.
        months: Of the year.
        weekdays: 0 is Monday.
        either: Whether a day fits that fits one of day of the month and day of the week: as in cron, where neither of
            the two begins with `*`. Else it must fit both.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def on(self, day: date) -> bool:
        """Say whether it fits a day."""
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.weekday() in self.weekdays
        return (of_month or of_week) if self.either else (of_month and of_week)

    @property
    def every_hour(self) -> bool:
        """Whether it leaves out no hour, so that it is an interval rather than a time of day."""
        return len(self.hours) == 24

    @property
    def seconds(self) -> tuple[int, ...]:
        """The times of a day, seconds from midnight, sorted."""
        return tuple(h * 3600 + m * 60 for h in self.hours for m in self.minutes)


def cron(text: str) -> Cron:
    """Read a cron line: five fields, or a word like `@daily`.

    Raises:
        Wrong: It cannot be read, or no day that exists ever fits.

    Examples:
        >>> cron("30 3 * * mon-fri").hours, sorted(cron("@weekly").weekdays)
        ((3,), [6])
    """
    line = _words(text)
    parts = line.split()
    if len(parts) != 5:
        raise Wrong(_count(len(parts)), _count_hint(parts))
    numbers = [_numbers(part, field) for part, field in zip(parts, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = numbers
    read = Cron(
        text=text,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        # Cron counts from Sunday, Python from Monday.
        weekdays=frozenset((n + 6) % 7 for n in weekdays),
        either=not parts[2].startswith("*") and not parts[4].startswith("*"),
    )
    if not read.either and min(read.days) > max(_LONGEST[m - 1] for m in read.months):
        named = " and ".join(MONTHS[m - 1] for m in sorted(read.months))
        raise Never(
            f"it never fires: {named} never has a day {min(read.days)}",
            "for the last day of a month write `calendar: last day`",
        )
    return read


def _words(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise Wrong("it is too long for a cron line", "for example `0 3 * * *`")
    if not text.startswith("@"):
        return text
    word = text.strip().lower()
    if word in _WORDS:
        return _WORDS[word]
    if word.startswith("@every"):
        raise Wrong(
            f'"{text}" is no time', f"write `every: {word.removeprefix('@every').strip() or '15m'}` instead of `at`"
        )
    close = near(word, _WORDS, most=1)
    raise Wrong(f'"{text}" is no time', f"did you mean `{close[0]}`?" if close else f"there is: {', '.join(_WORDS)}")


def _count(count: int) -> str:
    return f"it has {count} {'field' if count == 1 else 'fields'}, and a cron line has 5"


def _count_hint(parts: list[str]) -> str:
    if len(parts) in (6, 7):
        return f"seconds and years are not known: did you mean `{' '.join(parts[1:6])}`?"
    if len(parts) == 1 and re.fullmatch(r"[0-9]{1,2}:[0-9]{2}", parts[0]):
        hour, minute = parts[0].split(":")
        return f"did you mean `{int(minute)} {int(hour)} * * *`?"
    return "minute, hour, day of the month, month, day of the week: `0 3 * * *` is every day at 03:00"


def _numbers(part: str, field: _Field) -> set[int]:
    found: set[int] = set()
    for item in part.split(","):
        body, slash, step = item.partition("/")
        low, high = _range(body, field, item, open_end=bool(slash))
        found.update(range(low, high + 1, _step(step, field, item) if slash else 1))
    return found


def _range(body: str, field: _Field, whole: str, *, open_end: bool) -> tuple[int, int]:
    if body == "*":
        return field.low, field.high if field.high != 7 else 6
    begin, dash, end = body.partition("-")
    low = field.number(begin, whole)
    if not dash:
        # `5/15` is every 15 from 5 on.
        return low, (field.high if field.high != 7 else 6) if open_end else low
    high = field.number(end, whole)
    if high < low and field.high == 7 and high == 0:
        high = 7
    if high < low:
        raise Wrong(
            f'the {field.name} "{body}" ends before it begins', f"did you mean `{_turned(begin, end, low, field)}`?"
        )
    return low, high


def _turned(begin: str, end: str, low: int, field: _Field) -> str:
    """Return a range over the end of the day, week or year as two."""
    top = field.high if field.high != 7 else 6
    if not field.words or not begin.isalpha():
        first, last = str(top), str(field.low)
    else:
        first, last = field.words[-1].lower(), field.words[0].lower()
    head = begin if low == top else f"{begin}-{first}"
    tail = end if end == last else f"{last}-{end}"
    return f"{head},{tail}"


def _step(step: str, field: _Field, whole: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", step) or not int(step):
        raise Wrong(f'the step of the {field.name} "{whole}" is not a whole number above 0', "for example `*/15`")
    size = field.high - field.low + 1 - (field.high == 7)
    if int(step) > size:
        unit = {"minute": "m", "hour": "h"}.get(field.name)
        raise Wrong(
            f'the step of the {field.name} "{whole}" is longer than all {size} of them, so it would never come twice',
            f"write `every: {int(step)}{unit}` instead of `at`" if unit else f"write a step up to {size}",
        )
    return int(step)


def _extension(whole: str, name: str) -> str:
    """Say how to write what other programs have added to cron."""
    if whole == "?":
        return "write `*`"
    if any(sign in whole.upper() for sign in "LW#") and name.startswith("day"):
        return (
            "instead of `at` write `calendar: last day`, `first monday` or `nearest weekday to the 15th`, and the time"
        )
    return "a field is `*`, a number, a range `1-5`, a step `*/15` or a list `1,15`"
