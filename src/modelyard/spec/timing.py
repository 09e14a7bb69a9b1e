"""Turn a `schedule` section into what reckons with time, with the files that it names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelyard._kit.times import (
    Dates,
    Recurrence,
    Windows,
    Wrong,
    Zone,
    dates,
    deadline,
    recurrence,
    windows,
    zone,
)
from modelyard._kit.times.dates import lines_of
from modelyard.spec.outside import file_problems
from modelyard.spec.sections.schedule import Schedule

__all__ = ["Timing", "due_of", "is_date", "read_text", "skip_of", "timing"]

_MOST_BYTES = 20_000_000
_DATE = re.compile(r"[0-9]{2,4}-[0-9-]+")


@dataclass(frozen=True, slots=True)
class Timing:
    """A schedule as it reckons.

    Attributes:
        zone: Whose clocks it is read by.
        due: When it is due.
        avoid: Windows in which nothing is at work.
        prefer: Windows in which it rather is.
        deadline: From a due time to its deadline; none where none is declared.
    """

    zone: Zone
    due: Recurrence
    avoid: Windows
    prefer: Windows
    deadline: Callable[[float], float] | None


def timing(section: Schedule, root: Path) -> Timing:
    """Return how a schedule reckons.

    Raises:
        Wrong: Something in it, or in a file of holidays, cannot be read.
    """
    place = zone(section.zone)
    return Timing(
        zone=place,
        due=due_of(section, place, skip_of(section, root)),
        avoid=windows(section.avoid, place),
        prefer=windows(section.prefer, place),
        deadline=deadline(section.finish_by, place) if section.finish_by is not None else None,
    )


def due_of(section: Schedule, place: Zone, skip: Dates) -> Recurrence:
    """Return when a schedule is due; exactly one of `at`, `every`, `once` and `calendar` is given.

    Raises:
        Wrong: It cannot be read.
    """
    return recurrence(
        at=section.at or "",
        every=section.every or 0.0,
        once=section.once or "",
        calendar_words=section.calendar or "",
        begin=section.from_ or "",
        zone=place,
        skip=skip,
    )


def is_date(text: str) -> bool:
    """Say whether an item of `skip` is meant as a date, and not as a file."""
    return _DATE.fullmatch(text.strip()) is not None


def skip_of(section: Schedule, root: Path) -> Dates:
    """Return the days on which nothing is due.

    Raises:
        Wrong: A date is none, or a file cannot be read; with its line.
    """
    found: list[str] = []
    for item in section.skip:
        found += [item] if is_date(item) else lines_of(read_text(item, root))
    return dates(found)


def read_text(name: str, root: Path) -> str:
    """Return the text of a file of the project.

    Raises:
        Wrong: It is not there, leads out of the project, is too large or no text.
    """
    for _, message, hint in file_problems(name, root):
        raise Wrong(message, hint)
    path = root / Path(name).expanduser()
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise Wrong(f'"{name}" has more than {_MOST_BYTES:,} bytes', "keep only the rows that are to come")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Wrong(
            f'"{name}" cannot be read: {error.strerror or error}', "put the file there, or name another"
        ) from None
    except (UnicodeDecodeError, ValueError):
        raise Wrong(f'"{name}" is no text in UTF-8', "save it as UTF-8") from None
