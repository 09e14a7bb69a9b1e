"""What cannot be read in a schedule, what cannot hold together, and what would never start."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from modelyard._kit.times import (
    Dates,
    Never,
    Rates,
    Recurrence,
    Windows,
    Wrong,
    Zone,
    dates,
    deadline,
    rates,
    windows,
    zone,
)
from modelyard._kit.times.dates import date_of, lines_of
from modelyard._kit.times.moments import length, moment, said
from modelyard._kit.times.recurrence import upcoming
from modelyard._kit.times.room import ever
from modelyard._kit.times.spans import without
from modelyard.spec.declaration import Declaration
from modelyard.spec.outside import file_problems
from modelyard.spec.report import Finding
from modelyard.spec.sections.schedule import KINDS, Schedule, kinds_of, names_of
from modelyard.spec.timing import due_of, is_date, read_text

__all__ = ["schedule_rules"]

_RESERVED = "manual"
_DUES = 50

T = TypeVar("T")


def schedule_rules(
    d: Declaration, root: Path, places: Mapping[str, tuple[int, int]], *, files: bool
) -> Iterator[Finding]:
    """Yield what is wrong with the schedules.

    Nothing here asks for the time: a file that was right stays right. So a moment `once` that has passed is no mistake,
    and `modelyard plan` says that it has.

    Args:
        d: The declaration.
        root: Folder of the project.
        places: Place of each path that is written in the file.
        files: Also look at the tables and lists of holidays that they name.
    """
    yield from _names(d, places)
    for index, schedule in enumerate(d.schedule):
        yield from _Judge(f"schedule.{index}", schedule, root, files=files).findings()


def _names(d: Declaration, places: Mapping[str, tuple[int, int]]) -> Iterator[Finding]:
    names = names_of(d.schedule)
    for index, name in enumerate(names):
        at = f"schedule.{index}.name"
        at = at if at in places else f"schedule.{index}"
        if name in names[:index]:
            yield Finding(at, f'two schedules are called "{name}"', "give each its own `name`")
        elif name in d.triggers:
            yield Finding(
                at, f'a trigger is called "{name}" too', "give one of them another name", (f"triggers.{name}",)
            )
        elif name == _RESERVED:
            yield Finding(at, f'"{name}" is the name of what people start by hand', "give it another name")


class _Judge:
    """Judges one schedule; what cannot be read is said once, and what depends on it is left out."""

    def __init__(self, at: str, schedule: Schedule, root: Path, *, files: bool) -> None:
        self._at = at
        self._schedule = schedule
        self._root = root
        self._files = files
        self._found: list[Finding] = []

    def findings(self) -> Iterator[Finding]:
        s = self._schedule
        kinds = kinds_of(s)
        if len(kinds) != 1:
            yield self._not_one(kinds)
        place = self._read("zone", lambda: zone(s.zone), code="spec-bad-zone")
        skip = self._skip()
        if place is not None:
            due = self._due(kinds[0], place, skip) if len(kinds) == 1 and skip is not None else None
            avoid, prefer = self._windows("avoid", s.avoid, place), self._windows("prefer", s.prefer, place)
            by = self._deadline(place)
            table = self._prices(place)
            if avoid is not None and prefer is not None:
                self._against(avoid, prefer)
            if due is not None:
                self._jitter(due)
                if avoid is not None and not self._found:
                    self._ever(due, avoid, by, kinds[0])
                if table is not None and s.once is not None:
                    self._covers(table, due.after(0.0), place)
        yield from self._found

    def _not_one(self, kinds: list[str]) -> Finding:
        known = ", ".join(f"`{name}`" for name in KINDS)
        if not kinds:
            return Finding(
                self._at, "the schedule does not say when it is due", f"give it one of {known}", (f"{self._at}.*",)
            )
        both = " and ".join(f'"{kind}"' for kind in kinds)
        return Finding(
            f"{self._at}.{kinds[1]}",
            f"the schedule is due by {both}",
            "make it a list of two schedules",
            (f"{self._at}.*",),
        )

    def _say(self, field: str, message: str, hint: str, *needs: str, code: str = "spec-contradiction") -> None:
        judged_by = tuple(f"{self._at}.{name}" for name in needs)
        self._found.append(Finding(f"{self._at}.{field}", message, hint, judged_by, code))

    def _read(self, field: str, read: Callable[[], T], *, code: str, prefix: str = "") -> T | None:
        """Return what is read; none after noting why it cannot be."""
        try:
            return read()
        except Wrong as wrong:
            where = f"{prefix}, line {wrong.line}: " if wrong.line else ""
            code = "spec-never-due" if isinstance(wrong, Never) else code
            self._say(field, f"{where}{wrong.message}", wrong.hint, code=code)
            return None

    def _due(self, kind: str, place: Zone, skip: Dates) -> Recurrence | None:
        s = self._schedule
        if (
            s.from_ is not None
            and self._read("from", lambda: moment(str(s.from_), place), code="spec-bad-time") is None
        ):
            return None
        code = {"at": "spec-bad-cron", "calendar": "spec-bad-calendar"}.get(kind, "spec-bad-time")
        due = self._read(kind, lambda: due_of(s, place, skip), code=code)
        if kind == "once":
            for field, given in (("from", s.from_), ("skip", s.skip)):
                if given:
                    self._say(field, f'"{field}" says nothing for `once`', f"take `{field}` out")
        return due

    def _skip(self) -> Dates | None:
        """Return the holidays as far as they can be read; none if a date is none."""
        texts: list[str] = []
        right = True
        for index, item in enumerate(self._schedule.skip):
            field = f"skip.{index}"
            if is_date(item):
                right &= self._read(field, lambda item=item: date_of(item), code="spec-bad-time") is not None  # type: ignore[misc]
                texts.append(item)
            elif self._files:
                lines = self._file(field, item, lines_of, code="spec-bad-time")
                right &= lines is not None
                texts += lines or []
        return dates(texts) if right else None

    def _file(self, field: str, name: str, read: Callable[[str], T], *, code: str) -> T | None:
        """Return what stands in a file that the section names."""
        problems = list(file_problems(name, self._root))
        for problem, message, hint in problems:
            self._say(field, message, hint, code=problem)
        if problems:
            return None
        return self._read(field, lambda: read(read_text(name, self._root)), code=code, prefix=f'"{name}"')

    def _windows(self, field: str, texts: tuple[str, ...], place: Zone) -> Windows | None:
        right = [
            self._read(f"{field}.{index}", lambda text=text: windows([text], place), code="spec-bad-window")  # type: ignore[misc]
            for index, text in enumerate(texts)
        ]
        return None if None in right else windows(texts, place)

    def _deadline(self, place: Zone) -> Callable[[float], float] | None:
        s = self._schedule
        if s.finish_by is None:
            return None
        text = s.finish_by
        by = self._read("finish_by", lambda: deadline(text, place), code="spec-bad-time")
        if by is not None and s.takes is not None and text[:1].isdigit() and ":" not in text and by(0.0) < s.takes:
            self._say(
                "finish_by",
                f"a run takes longer than its deadline allows: `{text}`",
                "raise it, or lower `takes`",
                "takes",
                code="spec-never-due",
            )
        return by

    def _prices(self, place: Zone) -> Rates | None:
        name = self._schedule.prices
        if name is None or not self._files:
            return None
        return self._file("prices", name, lambda text: rates(text, place), code="spec-bad-prices")

    def _against(self, avoid: Windows, prefer: Windows) -> None:
        s = self._schedule
        if avoid.always:
            self._say(
                "avoid",
                "the windows to avoid leave no time of the week",
                "leave some time out of `avoid`",
                code="spec-never-due",
            )
        elif s.takes is not None and s.takes > avoid.longest_gap:
            gap = length(avoid.longest_gap)
            self._say(
                "avoid",
                f"a run takes {length(s.takes)}, and the longest time outside `avoid` is {gap}",
                "shorten the windows, or lower `takes`",
                "takes",
                code="spec-never-due",
            )
        elif prefer.week and all(not without((float(a), float(b)), _floats(avoid)) for a, b in prefer.week):
            self._say(
                "prefer",
                "all of `prefer` lies inside `avoid`, so nothing can be preferred",
                "make them differ",
                "avoid",
            )

    def _jitter(self, due: Recurrence) -> None:
        s = self._schedule
        if s.jitter is None:
            return
        # From a fixed day on: what is found must not depend on when the file is read.
        dues = list(upcoming(due, 1_704_067_199.0, _DUES))
        shortest = min((b - a for a, b in pairwise(dues)), default=math.inf)
        if s.jitter >= shortest:
            self._say(
                "jitter",
                f"starts are put off by up to {length(s.jitter)}, and it is due again after {length(shortest)}",
                "make `jitter` shorter than the time between two starts",
            )

    def _ever(self, due: Recurrence, avoid: Windows, by: Callable[[float], float] | None, kind: str) -> None:
        s = self._schedule
        if due.after(0.0) == math.inf:
            message = "it is never due: `skip` takes every day of it"
            self._say(kind, message, "skip fewer days", "skip", code="spec-never-due")
        elif by is not None and not ever(due, avoid, s.takes or 1.0, by):
            self._say(
                "avoid" if s.avoid else "finish_by",
                f"it can never end by `{s.finish_by}`: `avoid` leaves too little time before that deadline",
                "shorten the windows, give it a later deadline, or let it be due at another time",
                kind,
                "finish_by",
                "takes",
                code="spec-never-due",
            )

    def _covers(self, table: Rates, due: float, place: Zone) -> None:
        if not table.covers(due, due):
            reach = f"it goes from {said(table.begin, place)} to {said(table.end, place)}"
            message = f'"{self._schedule.prices}" has no price for {said(due, place)}: {reach}'
            self._say("prices", message, "add the rows of that time", "once", code="spec-bad-prices")


def _floats(avoid: Windows) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in avoid.week]
