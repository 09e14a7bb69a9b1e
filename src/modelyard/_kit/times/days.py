"""Days by the words of a calendar: `last weekday`, `3rd friday`, `nearest weekday to the 15th`, `quarter end`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta

from modelyard._kit.errors import near
from modelyard._kit.times.dates import Dates
from modelyard._kit.times.moments import clock_of, month_of
from modelyard._kit.times.weeks import DAYS
from modelyard._kit.times.wrong import Never, Wrong

__all__ = ["calendar", "day_of"]

# Picks the day of a period (its days in order), none if the period has no such day.
_Pick = Callable[[Sequence[date]], date | None]

_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_FULL_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS_OF = {"month": 1, "quarter": 3, "year": 12}
_EXAMPLE = "for example `last weekday 18:00`, `first monday of jan, jul 06:00`, `15th 03:00`, `quarter end 20:00`"
_TIME = re.compile(r"(?:^|\s)(?:at\s+)?(\S*:\S*|noon|midnight)$")
_ORDINAL = re.compile(rf"([0-9]{{1,3}})(?:st|nd|rd|th)|({'|'.join(_ORDINALS)})")


def day_of(word: str) -> int:
    """Return the number of a day of the week by its name or its first three letters; 0 is Monday.

    Raises:
        Wrong: It is none.
    """
    names = [d.lower() for d in DAYS]
    if word[:3] in names and _FULL_DAYS[names.index(word[:3])].startswith(word):
        return names.index(word[:3])
    close = near(word, [*names, *_FULL_DAYS]) or [n for n in names if word and n.startswith(word)]
    # "Munday" is as near to Sunday as to Monday; people seldom mistake the first letter.
    close.sort(key=lambda name: name[0] != word[0])
    hint = f"did you mean `{close[0].capitalize()}`?" if close else f"days are {', '.join(DAYS)}"
    raise Wrong(f'"{word}" is no day of the week', hint)


def calendar(text: str, skip: Dates) -> tuple[Callable[[date], bool], int]:
    """Read the words of a calendar.

    Args:
        text: `[the] DAY [of MONTHS] [at] [TIME]`; without a time it is midnight.
        skip: Holidays, which are no weekdays.

    Returns:
        Whether it fits a day, and the seconds from midnight.

    Raises:
        Wrong: It cannot be read, or no day ever fits.

    Examples:
        >>> fits, seconds = calendar("last day 18:00", Dates())
        >>> [d for d in range(26, 30) if fits(date(2028, 2, d))], seconds
        ([29], 64800)
    """
    words = " ".join(text.lower().replace(",", " , ").split()).replace(" , ", ", ")
    seconds = 0
    if match := _TIME.search(words):
        seconds = clock_of(match[1])
        words = words[: match.start()].strip()
    head, _, tail = words.partition(" of ")
    if not tail:
        head, _, tail = words.partition(" in ")
    day = head.removeprefix("on ").removeprefix("the ").strip()
    for period in _MONTHS_OF:
        if day in (f"{period} end", f"{period} start"):
            day, tail = ("last day" if day.endswith("end") else "1st day"), tail or f"the {period}"
    if day in ("end", "start"):
        day = "last day" if day == "end" else "1st day"
    if not day:
        raise Wrong("it names no day", _EXAMPLE)
    period, months = _period(tail)
    fits = _every(day, skip)
    if fits is None:
        fits = _picked(_pick(day, text, skip), _MONTHS_OF[period])
    if months and period == "month":
        every = fits

        def fits_months(d: date) -> bool:
            return d.month in months and every(d)

        fits = fits_months
    _ever(fits, text)
    return fits, seconds


def _period(tail: str) -> tuple[str, frozenset[int]]:
    """Return the period that a day is picked from, and the months that count; none: all."""
    words = tail.removeprefix("the ").removeprefix("each ").removeprefix("every ").strip()
    if words in ("", *_MONTHS_OF):
        return words or "month", frozenset()
    months: set[int] = set()
    for part in re.split(r",\s*(?:and\s+)?|\s+and\s+|\s+", words.replace(" to ", "-").replace(" - ", "-")):
        begin, dash, end = part.partition("-")
        first = month_of(begin)
        last = month_of(end) if dash else first
        months.update((first + n - 1) % 12 + 1 for n in range((last - first) % 12 + 1))
    return "month", frozenset(months)


def _every(day: str, skip: Dates) -> Callable[[date], bool] | None:
    """Return what fits `every monday`, `weekdays`, `monday`; none for other words."""
    word = day.removeprefix("every ").removeprefix("each ")
    if word in ("day", "days", "daily"):
        return lambda d: True
    if word in ("weekday", "weekdays"):
        return lambda d: _is_weekday(d, skip)
    single = word.removesuffix("s") if word.removesuffix("s") in _FULL_DAYS else word
    if single in _FULL_DAYS or single in [d.lower() for d in DAYS]:
        number = day_of(single)
        return lambda d: d.weekday() == number
    return None


def _pick(day: str, text: str, skip: Dates) -> _Pick:
    if match := re.fullmatch(rf"nearest weekday to (?:the )?(?:{_ORDINAL.pattern})", day):
        return _nearest(_ordinal(match[1], match[2]), skip)
    if match := re.fullmatch(rf"(?:{_ORDINAL.pattern})(?: day)?", day):
        number = _ordinal(match[1], match[2])
        return lambda period: period[number - 1] if number <= len(period) else None
    if match := re.fullmatch(rf"(?:(?:{_ORDINAL.pattern}) )?last(?: (\w+))?|(?:{_ORDINAL.pattern}) (\w+)", day):
        from_end, from_end_word, unit, forth, forth_word, other = match.groups()
        fits = _unit(unit or other or "day", skip)
        if other:
            return _place(fits, _ordinal(forth, forth_word) - 1)
        return _place(fits, -_ordinal(from_end, from_end_word) if from_end or from_end_word else -1)
    raise Wrong(f'"{text}" cannot be read: "{day}" is no day', _near_words(day))


def _near_words(day: str) -> str:
    known = ["last day", "last weekday", "first weekday", "quarter end", "month end", "weekdays", "every day"]
    known += [f"{which} {name}" for which in ("first", "last", "every") for name in _FULL_DAYS]
    if re.fullmatch(r"[0-9]{1,2}", day):
        number = int(day)
        ending = "th" if 10 < number < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
        return f"did you mean `{day}{ending}`?"
    close = near(day, known, most=1)
    return f"did you mean `{close[0]}`?" if close else _EXAMPLE


def _ordinal(number: str | None, word: str | None) -> int:
    found = int(number) if number else _ORDINALS.index(word or "first") + 1
    if not 1 <= found <= 366:
        raise Wrong(f"there is no day number {found}", "count from `1st`")
    return found


def _unit(word: str, skip: Dates) -> Callable[[date], bool]:
    if word == "day":
        return lambda d: True
    if word == "weekday":
        return lambda d: _is_weekday(d, skip)
    try:
        number = day_of(word)
    except Wrong as wrong:
        close = near(word, ("weekday", "day", *_FULL_DAYS), most=1)
        raise Wrong(wrong.message, f"did you mean `{close[0]}`?" if close else wrong.hint) from None
    return lambda d: d.weekday() == number


def _is_weekday(day: date, skip: Dates) -> bool:
    return day.weekday() < 5 and day not in skip


def _place(fits: Callable[[date], bool], place: int) -> _Pick:
    def pick(period: Sequence[date]) -> date | None:
        found = [d for d in period if fits(d)]
        return found[place] if -len(found) <= place < len(found) else None

    return pick


def _nearest(number: int, skip: Dates) -> _Pick:
    def pick(period: Sequence[date]) -> date | None:
        if number > len(period):
            return None
        wanted = period[number - 1]
        # Of two as near as each other the earlier; never over the end of the period.
        return min((d for d in period if _is_weekday(d, skip)), key=lambda d: (abs(d - wanted), d), default=None)

    return pick


def _picked(pick: _Pick, months: int) -> Callable[[date], bool]:
    """Return whether a day is the one picked from its month, quarter or year."""
    known: dict[tuple[int, int], date | None] = {}

    def fits(day: date) -> bool:
        key = day.year, (day.month - 1) // months
        try:
            return known[key] == day
        except KeyError:
            if len(known) > 100:
                known.clear()
            # Not read again: another thread may have cleared it.
            known[key] = picked = pick(_days_of(*key, months))
            return picked == day

    return fits


def _days_of(year: int, number: int, months: int) -> list[date]:
    """Return the days of a period of so many months."""
    first = date(year, number * months + 1, 1)
    last = (number + 1) * months
    end = date(year + last // 12, last % 12 + 1, 1)
    return [first + timedelta(days=n) for n in range((end - first).days)]


def _ever(fits: Callable[[date], bool], text: str) -> None:
    """Make sure that some day fits, leap days included."""
    day = date(2000, 1, 1)
    if not any(fits(day + timedelta(days=n)) for n in range(28 * 366)):
        raise Never(f'it never fires: no day is ever "{text}"', f"name a day that exists; {_EXAMPLE}")
