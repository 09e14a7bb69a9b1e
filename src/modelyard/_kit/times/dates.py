"""Days on which nothing is due: single dates, dates of every year, and lists of them in a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from modelyard._kit.times.wrong import Wrong

__all__ = ["Dates", "date_of", "dates", "lines_of"]

_YEARLY = re.compile(r"([0-9]{2})-([0-9]{2})")
_FULL = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Dates:
    """A set of days.

    Attributes:
        single: Dates of one year.
        yearly: Month and day of every year.
    """

    single: frozenset[date] = frozenset()
    yearly: frozenset[tuple[int, int]] = frozenset()

    def __contains__(self, day: date) -> bool:
        return day in self.single or (day.month, day.day) in self.yearly

    def __bool__(self) -> bool:
        return bool(self.single or self.yearly)

    def between(self, first: date, last: date) -> Iterator[date]:
        """Yield the days of the set from one to another, both included, in order."""
        if not self:
            return
        day = first
        while day <= last:
            if day in self:
                yield day
            day += timedelta(days=1)


def date_of(text: str) -> date | tuple[int, int]:
    """Return a date, or month and day of a date of every year (`12-25`).

    Raises:
        Wrong: It is none.
    """
    hint = "write `2026-12-25`, or `12-25` for every year"
    if match := _FULL.fullmatch(text.strip()):
        year, month, day = (int(part) for part in match.groups())
    elif match := _YEARLY.fullmatch(text.strip()):
        year, month, day = 2000, int(match[1]), int(match[2])
    else:
        raise Wrong(f'"{text}" is no date', hint)
    try:
        found = date(year, month, day)
    except ValueError as error:
        raise Wrong(f'"{text}" is no date: {error}', hint) from None
    return found if _FULL.fullmatch(text.strip()) else (found.month, found.day)


def dates(texts: Iterable[str]) -> Dates:
    """Return the set of days that the texts name.

    Raises:
        Wrong: One of them is no date.

    Examples:
        >>> date(2027, 12, 25) in dates(["12-25"]), date(2027, 5, 1) in dates(["2026-05-01"])
        (True, False)
    """
    read = [date_of(text) for text in texts]
    return Dates(
        frozenset(d for d in read if isinstance(d, date)),
        frozenset(d for d in read if not isinstance(d, date)),
    )


def lines_of(text: str) -> list[str]:
    """Return the dates of a file: one begins a line, and what stands after it is its name.

    Raises:
        Wrong: A line begins with something else; with its line. An empty line and one that begins with `#` may stand.
    """
    found = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        first = re.split(r"[\s,;#]", line.strip(), maxsplit=1)[0]
        if not first:
            continue
        try:
            date_of(first)
        except Wrong as wrong:
            raise Wrong(wrong.message, wrong.hint, line=number) from None
        found.append(first)
    return found
