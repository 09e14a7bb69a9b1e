"""Remember which version had come last when a process died: one that ends its process again and again must not stay.

An error of a version is counted in the process that answers with it. A crash in native code, or memory that runs out,
leaves nobody to count: so a process leaves a mark on disk before it makes a version ready that has taken over of late,
and takes it away when that has lasted, when another comes, or when it ends. A mark whose process is gone is a death.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.processes import born
from modelyard.records import Alias, Deployment
from modelyard.serving.versions.settling import Pointer

__all__ = ["Deaths"]

# So many processes have to die: one may be killed by hand, and a second one by mistake.
_MOST = 3


class _Mark(msgspec.Struct, frozen=True):
    """What a process leaves.

    Attributes:
        alias: Alias of the version that came last.
        revision: Number of its move.
        pid: The process.
        born: What tells it from others with its id.
        parent: The process that starts it again and ends with all of its children; 0: there is none.
        parent_born: As `born`.
    """

    alias: Alias
    revision: int
    pid: int
    born: str
    parent: int = 0
    parent_born: str = ""

    @property
    def gone(self) -> bool:
        """Whether the process is."""
        return born(self.pid) != self.born

    def died(self) -> bool:
        """Say whether the process died, and by itself: not with the system, nor with its parent."""
        here = born(os.getpid()).partition("@")[2] == self.born.partition("@")[2]
        return here and self.gone and (not self.parent or born(self.parent) == self.parent_born)


class Deaths:
    """What processes of one endpoint died with.

    Args:
        project: Folder of the project.
        endpoint: Name of the endpoint.
        seconds: How long after its move a version is watched; 0: none is.
        parent: The process that starts this one again; 0: there is none.
        clock: Source of the time.
    """

    def __init__(
        self, project: Path, endpoint: str, seconds: float, *, parent: int = 0, clock: Clock = system_clock
    ) -> None:
        self._folder = project / ".modelyard" / "marks" / endpoint
        self._seconds = seconds
        self._clock = clock
        self._own = born(os.getpid())
        self._parent = parent
        # Until when the version that came last is watched.
        self._until = 0.0

    def watch(self, pointer: Pointer) -> None:
        """Leave a mark for a version that is about to be made ready, if it has taken over of late.

        What a server went back to is not watched: it must end somewhere.
        """
        until = pointer.since + self._seconds
        if pointer.back or not self._seconds or not self._own or self._clock() >= until:
            return
        to = pointer.to
        mark = _Mark(to.alias, to.revision, os.getpid(), self._own, self._parent, born(self._parent))
        # Where nothing can be written down a crash is not counted, and all else is as ever.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            for path, other in self._marks():
                if other.gone and (other.alias, other.revision) != (to.alias, to.revision):
                    path.unlink(missing_ok=True)
            self._file.write_bytes(msgspec.json.encode(mark))
            self._until = until

    def found(self, to: Deployment) -> str:
        """Return why a version must not answer, by what its processes came to; empty if it may."""
        died = sum(mark.died() for _, mark in self._marks() if (mark.alias, mark.revision) == (to.alias, to.revision))
        return f"{died} processes have died with it since it took over" if died >= _MOST else ""

    def look(self) -> None:
        """Take the mark away once the version has lasted."""
        if self._until and self._clock() >= self._until:
            self.forget()

    def forget(self) -> None:
        """Take the mark away: the version is not at work, or the process ends as it should."""
        if self._until:
            self._until = 0.0
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self._folder / f"{os.getpid()}.json"

    def _marks(self) -> list[tuple[Path, _Mark]]:
        found = []
        for path in self._folder.glob("*.json"):
            # Others come and go meanwhile; and what no process of ours has written is no mark.
            with contextlib.suppress(OSError, msgspec.DecodeError):
                found.append((path, msgspec.json.decode(path.read_bytes(), type=_Mark)))
        return found
