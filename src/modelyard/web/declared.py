"""The declaration as the pages see it: read again when its file changes, and absent with a reason where it is wrong."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from modelyard._kit.errors import ModelyardError, Problem
from modelyard.security.redact import redact
from modelyard.spec import Spec, load

__all__ = ["Declaration", "Declared", "told"]

_Mark = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Declared:
    """What the file says now.

    Attributes:
        path: Its file.
        spec: The declaration; none where it cannot be read.
        problem: Why not; none where it can.
    """

    path: Path
    spec: Spec | None
    problem: Problem | None = None


def told(error: ModelyardError) -> Problem:
    """Return an error as a page tells of it: no secret in it, and how many more there are."""
    first = error.problem
    more = len(error.problems) - 1
    message = f"{redact(first.message)}{f' (and {more} more)' if more else ''}"
    return Problem(first.code, message, where=first.where, hint=redact(first.hint))


class Declaration:
    """The declaration of a project.

    Args:
        path: Its file; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._known: tuple[_Mark, Declared] | None = None

    def now(self) -> Declared:
        """Return what the file says now."""
        with self._lock:
            found = self._mark()
            if self._known is None or self._known[0] != found:
                self._known = (found, self._read())
            return self._known[1]

    def _mark(self) -> _Mark:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Declared:
        try:
            return Declared(self.path, load(self.path, files=False))
        except ModelyardError as error:
            return Declared(self.path, None, told(error))
