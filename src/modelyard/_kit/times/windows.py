"""Windows of the week: `Mon-Fri 08:00-18:00`, `Sat-Sun, 22:00-06:00`.

    WINDOWS := GROUP {, GROUP}      a `;` may stand for the comma, and `and` too
    GROUP   := DAYS | TIMES | DAYS TIMES
    DAYS    := DAY[-DAY] {, DAY[-DAY]} | weekdays | weekends | daily
    TIMES   := HH:MM-HH:MM {, HH:MM-HH:MM}

Days without times are whole days; times without days are of every day. Times behind days without a comma are times of
all days of that group: `Mon, Wed 08:00-12:00` is two mornings, `Sat-Sun, 22:00-06:00` is the weekend and every night.
Times over midnight belong to the day on which they begin. All is read off the wall clock, over clock changes too.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelyard._kit.times.days import day_of
from modelyard._kit.times.spans import Span, union
from modelyard._kit.times.weeks import DAYS, WEEK, of_week, weekly
from modelyard._kit.times.wrong import Wrong
from modelyard._kit.times.zones import DAY, Zone, wall

__all__ = ["Windows", "windows"]

_GROUPS = {
    "weekdays": range(5),
    "weekday": range(5),
    "weekends": range(5, 7),
    "weekend": range(5, 7),
    "daily": range(7),
}
_TOKEN = re.compile(r"\s*([a-z]+|[0-9]{1,2}:[0-9]{2}|[-,;])")
_EXAMPLE = 'for example `"Mon-Fri 08:00-18:00"` or `"Sat-Sun, 22:00-06:00"`'
# A pattern that comes again every week shows itself whole in eight days and a clock change.
_HORIZON = 9.0 * DAY
_MOST_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of the week in one zone.

    Attributes:
        text: As they were written.
        week: From and to, seconds from Monday 00:00; sorted, and none touches another.
        zone: Whose wall clock they are read off.
    """

    text: str
    week: tuple[tuple[int, int], ...]
    zone: Zone

    @property
    def always(self) -> bool:
        """Whether they hold the whole week."""
        return self.week == ((0, WEEK),)

    @property
    def longest_gap(self) -> float:
        """The longest stretch outside them in a week without a clock change, seconds; `inf` if there is no window."""
        if not self.week:
            return math.inf
        ends = [(a, b) for (_, a), (b, _) in zip(self.week, self.week[1:], strict=False)]
        ends.append((self.week[-1][1], self.week[0][0] + WEEK))
        return float(max(b - a for a, b in ends))

    def contains(self, at: float) -> bool:
        """Say whether a moment lies in one of them."""
        second = of_week(wall(at, self.zone))
        place = bisect_right(self.week, (second, math.inf)) - 1
        return place >= 0 and second < self.week[place][1]

    def next_change(self, at: float) -> float:
        """Return the first moment after another from which on it is the other way round; `inf` if it stays so."""
        spans = self.spans(at, at + _HORIZON)
        inside = bool(spans) and spans[0][0] <= at
        if inside:
            return spans[0][1] if spans[0][1] < at + _HORIZON else math.inf
        return spans[0][0] if spans else math.inf

    def spans(self, begin: float, end: float) -> list[Span]:
        """Return what of a stretch of time lies in them: sorted stretches that do not touch."""
        marks = [(first, last, None) for first, last in self.week]
        return union((a, b) for a, b, _ in weekly(self.zone, begin, end, marks))


def windows(texts: Sequence[str], zone: Zone) -> Windows:
    """Read windows; several texts are one set.

    Raises:
        Wrong: A text cannot be read; the hint has the near correct form.

    Examples:
        >>> from datetime import UTC
        >>> windows(["Mon-Fri 22:00-06:00"], UTC).longest_gap / 3600
        64.0
    """
    found: list[tuple[int, int]] = []
    for text in texts:
        try:
            found += _read(text)
        except Wrong as wrong:
            repaired = _repaired(text)
            raise Wrong(wrong.message, f'did you mean `"{repaired}"`?' if repaired else wrong.hint) from None
    week = [(a, min(b, WEEK)) for a, b in found] + [(0, b - WEEK) for _, b in found if b > WEEK]
    joined = tuple((int(a), int(b)) for a, b in union((float(a), float(b)) for a, b in week))
    return Windows("; ".join(texts), joined, zone)


def _read(text: str) -> list[tuple[int, int]]:
    """Return the windows of one text, seconds from Monday 00:00; one over the end of the week ends after it."""
    if not text.strip() or len(text) > _MOST_CHARACTERS:
        raise Wrong(f"a window is {'too long' if text.strip() else 'empty'}", _EXAMPLE)
    groups: list[tuple[list[int], list[tuple[int, int]]]] = [([], [])]
    for before, begin, end in _items(_tokens(text), text):
        days, times = groups[-1]
        is_time = begin[0].isdigit()
        # A `;` ends a group; so do days behind times, and times behind days where a comma stands between them.
        if before == ";" or (times and not is_time) or (days and not times and is_time and before == ","):
            days, times = [], []
            groups.append((days, times))
        if is_time:
            times.append(_times(begin, end, text))
        else:
            days.extend(_days(begin, end))
    found = [
        (day * DAY + a, day * DAY + b)
        for days, times in groups
        for day in sorted(set(days)) or (range(7) if times else ())
        for a, b in times or [(0, DAY)]
    ]
    if not found:
        raise Wrong(f'"{text}" names no time', _EXAMPLE)
    return found


def _items(signs: list[str], text: str) -> Iterator[tuple[str, str, str]]:
    """Yield what stood before each day, time or range of them (`,`, `;` or nothing), its begin and its end."""
    before, at = "", 0
    while at < len(signs):
        begin, end = signs[at], ""
        if begin in ",;":
            before, at = begin, at + 1
            continue
        if begin == "-":
            raise Wrong(f'in "{text}" a range has no begin', _EXAMPLE)
        if signs[at + 1 : at + 2] == ["-"]:
            end = signs[at + 2] if at + 2 < len(signs) else ""
            if not end or end in "-,;":
                raise Wrong(f'in "{text}" the range "{begin}-" has no end', _EXAMPLE)
        yield before, begin, end
        before, at = "", at + (3 if end else 1)


def _tokens(text: str) -> list[str]:
    plain = re.sub(r"[\u2010-\u2015]", "-", text.lower())
    plain = re.sub(r"\bto\b", "-", re.sub(r"\band\b", ",", plain))
    plain = re.sub(r"\bevery day\b", "daily", plain).strip()
    found, at = [], 0
    while at < len(plain):
        match = _TOKEN.match(plain, at)
        if match is None or (match.end() < len(plain) and match[1][-1].isalnum() and plain[match.end()].isalnum()):
            word = plain[at:].split()[0].strip(",;")
            raise Wrong(f'"{word}" in "{text}" is neither a day nor a time', _EXAMPLE)
        found.append(match[1])
        at = match.end()
    return found


def _days(begin: str, end: str) -> list[int]:
    if begin in _GROUPS:
        if end:
            raise Wrong(f'"{begin}-{end}" is no range of days', _EXAMPLE)
        return list(_GROUPS[begin])
    first = day_of(begin)
    last = day_of(end) if end else first
    # `Fri-Mon` goes over the end of the week.
    return [(first + n) % 7 for n in range((last - first) % 7 + 1)]


def _times(begin: str, end: str, text: str) -> tuple[int, int]:
    if not end:
        raise Wrong(f'"{begin}" in "{text}" has no end', f"write from and to: `{begin}-18:00`")
    first, last = _second(begin, text), _second(end, text)
    if first == DAY:
        raise Wrong(f'"{begin}-{end}" begins at the end of the day', f"write `00:00-{end}`")
    if first == last:
        raise Wrong(
            f'"{begin}-{end}" ends where it begins', "for whole days name the days only, or write `00:00-24:00`"
        )
    return first, last if last > first else last + DAY


def _second(clock: str, text: str) -> int:
    hour, _, minute = clock.partition(":")
    if not (hour.isdigit() and minute.isdigit()):
        raise Wrong(f'"{clock}" in "{text}" is no time of day', _EXAMPLE)
    second = int(hour) * 3600 + int(minute) * 60
    if int(minute) > 59 or second > DAY:
        raise Wrong(f'"{clock}" in "{text}" is no time of day', "write hours and minutes: 00:00 to 24:00")
    return second


def _repaired(text: str) -> str:
    """Return the text with what people often write put right, if it can then be read; else nothing."""
    plain = re.sub(r"[\u2010-\u2015]", "-", text)
    plain = re.sub(r"(?i)\b(\d{1,2})(?:[:.](\d{2}))?\s*([ap])\.?m\b\.?", _to_24, plain)
    plain = re.sub(r"\b(\d{1,2})\.(\d{2})\b", r"\1:\2", plain)
    plain = re.sub(r"(?<![:\d])(\d{1,2})\s*h?\s*-\s*(\d{1,2})\s*h?(?![:\d])", r"\1:00-\2:00", plain)
    plain = re.sub(r"(?<![:\d])(\d{1,2})\s*h?\s*-\s*(\d{1,2}:\d{2})", r"\1:00-\2", plain)
    plain = re.sub(r"(\d{1,2}:\d{2})\s*-\s*(\d{1,2})(?![:\d])", r"\1-\2:00", plain)
    plain = re.sub(r"\b(\d):", r"0\1:", plain)
    plain = re.sub(r"[A-Za-z]+", lambda word: _near_day(word[0]), plain)
    plain = re.sub(r"\s+", " ", re.sub(r"[()|/]", " ", plain)).strip()
    try:
        _read(plain)
    except Wrong:
        return ""
    return plain


def _to_24(match: re.Match[str]) -> str:
    hour = int(match[1]) % 12 + (12 if match[3].lower() == "p" else 0)
    return f"{hour:02d}:{match[2] or '00'}"


def _near_day(word: str) -> str:
    """Return the day that a word is meant to be, as it is written here; else the word."""
    plain = word.lower()
    if plain in (*_GROUPS, "to", "and", "every", "day"):
        return word
    try:
        return DAYS[day_of(plain)]
    except Wrong as wrong:
        close = re.search(r"`(\w+)`", wrong.hint)
        return DAYS[day_of(close[1].lower())] if close else word
