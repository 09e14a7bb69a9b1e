"""Tables of what an hour costs, in money or in carbon, as steps in time.

Three forms, told apart by the first column: moments (`2026-11-23T05:00+01:00,0.21`), a week (`Mon 06:00,0.28`,
`Sat-Sun 00:00,0.19`) and a day (`06:00,0.28`, or just the hour `6,0.28`). A row holds until the next one.
"""

from __future__ import annotations

import csv
import io
import math
import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from modelyard._kit.times.days import day_of
from modelyard._kit.times.moments import moment
from modelyard._kit.times.weeks import DAYS, WEEK, weekly
from modelyard._kit.times.wrong import Wrong
from modelyard._kit.times.zones import DAY, Zone

__all__ = ["Rates", "rates"]

# From, to, and what an hour costs there.
Step = tuple[float, float, float]
_MOST_ROWS = 200_000
_HEADS = ("time", "hour", "start", "from", "begin", "day", "date", "datetime", "timestamp", "valid_from", "when")
_OF_DAY = re.compile(r"(?:([A-Za-z]+)(?:-([A-Za-z]+))?\s+)?(\d{1,2})(?::(\d{2}))?")
_EXAMPLE = "rows are `2026-11-23T05:00+01:00,0.21`, or `Mon 06:00,0.28` for every week, or `06:00,0.28` for every day"


@dataclass(frozen=True, slots=True)
class Rates:
    """What an hour costs, as steps in time.

    Attributes:
        unit: Of an hour's price, from the head of the table: `EUR/h`, `EUR/kWh`, `gCO2/kWh`, or its plain name.
        dated: Begin, end and price of each step of a table of moments, in order.
        week: The same of a table that comes again every week, seconds from Monday 00:00.
        zone: Whose clocks a week is read by.
    """

    unit: str
    dated: tuple[Step, ...]
    week: tuple[tuple[int, int, float], ...]
    zone: Zone

    @property
    def begin(self) -> float:
        """The first moment that has a price; `-inf` for one that comes again."""
        return self.dated[0][0] if self.dated else -math.inf

    @property
    def end(self) -> float:
        """The moment from which on there is no price; `inf` for one that comes again."""
        return self.dated[-1][1] if self.dated else math.inf

    @property
    def cost_unit(self) -> str:
        """The unit of what a run costs: price times hours."""
        for per, left in (("/kwh", "/kW"), ("/mwh", "/MW"), ("/wh", "/W"), ("/h", ""), ("/hour", ""), ("/hr", "")):
            if self.unit.lower().endswith(per):
                return self.unit[: -len(per)] + left
        return f"{self.unit}·h"

    def covers(self, begin: float, end: float) -> bool:
        """Say whether every moment of a stretch has a price."""
        return self.begin <= begin and end <= self.end

    def steps(self, begin: float, end: float) -> list[Step]:
        """Return the steps of a stretch of time, cut to it; where there is no price, there is no step."""
        if not self.dated:
            return list(weekly(self.zone, begin, end, self.week))
        low = max(0, bisect_right(self.dated, (begin, math.inf, math.inf)) - 1)
        high = bisect_right(self.dated, (end, -math.inf, -math.inf))
        cut = ((max(a, begin), min(b, end), price) for a, b, price in self.dated[low:high])
        return [step for step in cut if step[0] < step[1]]


def rates(text: str, zone: Zone) -> Rates:
    """Read a price table.

    Args:
        text: CSV with a head of two columns, time and price; the name of the second is the unit.
        zone: Whose clocks a time without an offset is read by.

    Raises:
        Wrong: It cannot be read, or a time has no price; with the line.
    """
    unit, rows = _rows(text)
    if not rows:
        raise Wrong("the table has no row", _EXAMPLE, line=1)
    # A date begins with four digits; nothing else does.
    if re.match(r"\d{4}", rows[0][1]):
        return Rates(unit, _dated(rows, zone), (), zone)
    return Rates(unit, (), _week(rows), zone)


# Line, time and price.
_Row = tuple[int, str, float]


def _rows(text: str) -> tuple[str, list[_Row]]:
    lines = text.lstrip("\ufeff")
    separator = ";" if ";" in lines.partition("\n")[0] else ","
    reader = csv.reader(io.StringIO(lines), delimiter=separator, strict=True)
    unit, found = "", list[_Row]()
    try:
        for cells in reader:
            number = reader.line_num
            cells = [cell.strip() for cell in cells]
            if not any(cells) or cells[0].startswith("#"):
                continue
            if len(cells) != 2:
                raise Wrong(f"the row has {len(cells)} columns, not 2", "keep time and price", line=number)
            if not unit:
                unit = _head(cells, number)
                continue
            found.append((number, cells[0], _price(cells[1], separator, number)))
            if len(found) > _MOST_ROWS:
                raise Wrong(f"the table has more than {_MOST_ROWS:,} rows", "keep those that are to come", line=number)
    except csv.Error as error:
        raise Wrong(f"the table is no CSV: {error}", _EXAMPLE, line=reader.line_num) from None
    if not unit:
        raise Wrong("the table is empty", f"begin it with `time,EUR/kWh`; {_EXAMPLE}", line=1)
    return unit, found


def _head(cells: list[str], number: int) -> str:
    if re.search(r"\d", cells[0]) or cells[0].lower().split("(")[0].strip() not in _HEADS:
        raise Wrong(
            f'the table begins with "{cells[0]}", not with the names of its columns',
            "begin it with `time,EUR/kWh`: the second name is the unit",
            line=number,
        )
    inside = re.search(r"[(\[]([^)\]]+)[)\]]", cells[1])
    unit = (inside[1] if inside else cells[1]).strip()
    if not unit or len(unit) > 24:
        raise Wrong(
            "the second column needs a name of 1 to 24 characters", "name it by its unit: `EUR/kWh`", line=number
        )
    return unit


def _price(cell: str, separator: str, number: int) -> float:
    try:
        price = float(cell.replace(",", ".") if separator == ";" else cell)
    except ValueError:
        price = math.nan
    if not math.isfinite(price):
        raise Wrong(f'"{cell}" is no price', "write a number; it may be negative", line=number)
    return price


def _dated(rows: list[_Row], zone: Zone) -> tuple[Step, ...]:
    times: list[tuple[float, float, int]] = []
    for number, text, price in rows:
        try:
            at = moment(text, zone)
        except Wrong as wrong:
            raise Wrong(wrong.message, wrong.hint, line=number) from None
        if times and at <= times[-1][0]:
            raise Wrong(
                f'"{text}" does not come after the row before it',
                "sort the rows by time, each time once; an hour that clocks show twice needs its offset (`+01:00`)",
                line=number,
            )
        if times and at - times[-1][0] > DAY:
            raise Wrong(
                f'there is no price for {(at - times[-1][0]) / 3600:g} hours before "{text}"',
                "a row holds for a day at most: add the rows that are missing",
                line=number,
            )
        times.append((at, price, number))
    # The last row holds for as long as the one before it.
    length = times[-1][0] - times[-2][0] if len(times) > 1 else 3600.0
    ends = [*(b[0] for _, b in pairwise(times)), times[-1][0] + length]
    return tuple((at, end, price) for (at, price, _), end in zip(times, ends, strict=True))


def _week(rows: list[_Row]) -> tuple[tuple[int, int, float], ...]:
    named = _of_day(rows[0])[0] is not None
    points: dict[int, tuple[float, int]] = {}
    for row in rows:
        number, text, price = row
        days, second = _of_day(row)
        if (days is not None) != named:
            other = "names a day of the week" if named else "names none"
            raise Wrong(f'"{text}" is of another form than the first row, which {other}', _EXAMPLE, line=number)
        for day in days or range(7):
            if day * DAY + second in points:
                first = points[day * DAY + second][1]
                raise Wrong(f'"{text}" has a price on line {first} already', "keep one of them", line=number)
            points[day * DAY + second] = price, number
    missing = [day for day in range(7) if day * DAY not in points]
    if missing:
        which = ", ".join(DAYS[day] for day in missing) if named else "every day"
        line = (
            rows[0][0]
            if not named
            else next((n for p, (_, n) in sorted(points.items()) if p // DAY in missing), rows[-1][0])
        )
        raise Wrong(
            f"there is no price from 00:00 on for {which}",
            f"add a row `{f'{DAYS[missing[0]]} ' if named else ''}00:00`; a row holds until the next one of its day",
            line=line,
        )
    begins = sorted(points)
    return tuple((a, b, points[a][0]) for a, b in zip(begins, [*begins[1:], WEEK], strict=True))


def _of_day(row: _Row) -> tuple[list[int] | None, int]:
    """Return the days of the week that a row names (none: every day) and the seconds from midnight."""
    number, text, _ = row
    match = _OF_DAY.fullmatch(text)
    if match is None or int(match[3]) > 23 or int(match[4] or 0) > 59:
        raise Wrong(f'"{text}" is no time', _EXAMPLE, line=number)
    days = None
    if match[1]:
        try:
            first = day_of(match[1].lower())
            last = day_of(match[2].lower()) if match[2] else first
        except Wrong as wrong:
            raise Wrong(wrong.message, wrong.hint, line=number) from None
        days = [(first + n) % 7 for n in range((last - first) % 7 + 1)]
    return days, int(match[3]) * 3600 + int(match[4] or 0) * 60
