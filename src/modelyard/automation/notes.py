"""What the daemon says while it works: one line for a person, or one line of JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from modelyard._kit.clock import Clock, system_clock

__all__ = ["Note", "Say", "note"]


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to the daemon itself; what happened to runs and fires is in the ledger.

    Attributes:
        time: Seconds since 1970 UTC.
        what: `ready`, `fire`, `run`, `trigger`, `child`, `said` (a line of a child), `file` or `stop`.
        name: Of the trigger, run or child.
        project: Of the project; empty: the daemon as a whole.
        text: For a person.
        more: For a program.
    """

    time: float
    what: str
    text: str
    name: str = ""
    project: str = ""
    more: dict[str, Any] = {}


# Takes each note; must not fail.
Say = Callable[[Note], None]


def note(what: str, text: str, *, name: str = "", project: str = "", clock: Clock = system_clock, **more: Any) -> Note:
    """Return a note of now."""
    return Note(time=clock(), what=what, text=text, name=name, project=project, more=more)
