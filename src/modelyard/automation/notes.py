"""What the daemon says while it works: one line for a person, or one line of JSON."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from modelyard._kit.clock import Clock, system_clock

__all__ = ["Aside", "Note", "Say", "note"]


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


class Aside:
    """Says notes in a thread of its own: a terminal that is held or a pipe that nobody reads must not stop the work.

    Args:
        say: What says one note; when it fails as a pipe does whose reader has gone, nothing more is said.
        most: Notes that may wait; the oldest are left out first.
    """

    def __init__(self, say: Say, *, most: int = 10_000) -> None:
        self._say = say
        self._most = most
        self._waiting: deque[Note] = deque()
        self._left_out = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ending = self._deaf = False

    def __call__(self, said: Note) -> None:
        """Have a note said soon."""
        with self._changed:
            if self._deaf:
                return
            self._waiting.append(said)
            if len(self._waiting) > self._most:
                self._waiting.popleft()
                self._left_out += 1
            if self._thread is None:
                # Not earlier: a process that is still to be copied has no threads.
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self, seconds: float = 2.0) -> bool:
        """Let what waits be said, for so many seconds; return whether nobody is held by it any more."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)
            return not self._thread.is_alive()
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                now, lost, self._left_out = self._waiting.popleft(), self._left_out, 0
            try:
                if lost:
                    self._say(note("said", f"{lost} lines were left out: nobody read them"))
                self._say(now)
            except (OSError, ValueError):
                with self._changed:
                    self._deaf = True
                    self._waiting.clear()
                return
