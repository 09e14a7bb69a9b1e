"""Digests of files, remembered so that a file that did not change is not read again.

An entry is believed only while size, both times and inode are the same as when the file was read, and only if the
file had rested for two seconds by then: within the grain of a file system's clock a file may change without a trace
(git calls this racily clean). A broken or missing cache costs time, never truth.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import digest_file
from modelyard._kit.errors import DataError
from modelyard._kit.files import write_atomic

__all__ = ["Digests", "Memory", "cache_folder"]

# Seconds that a file must have rested before its digest is remembered.
_REST = 2.0
_TRIES = 3


def cache_folder(root: Path) -> Path:
    """Return the folder of what may be thrown away at any time."""
    return root / ".modelyard" / "cache"


class Memory:
    """A small JSON object on disk that may vanish at any time.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._entries: dict[str, Any] = {}
        try:
            read = msgspec.json.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError):
            return
        if isinstance(read, dict):
            self._entries = read

    def get(self, key: str) -> Any:
        """Return what is remembered under a key, or none."""
        return self._entries.get(key)

    def put(self, key: str, value: Any) -> None:
        """Remember plain JSON; `save` writes it."""
        if self._entries.get(key) != value:
            self._entries[key] = value
            self._changed = True

    def forget(self, key: str) -> None:
        """Drop what is remembered under a key."""
        self._changed |= self._entries.pop(key, None) is not None

    def save(self) -> None:
        """Write what changed; where that cannot be done, the next run just takes longer."""
        # A look before the first run leaves nothing behind.
        if self._changed and self._path.parent.parent.is_dir():
            with contextlib.suppress(OSError):
                write_atomic(self._path, msgspec.json.encode(self._entries))
            self._changed = False


class Digests:
    """The digests of a project's source files.

    Args:
        root: Folder of the project.
        clock: Source of the time.
    """

    def __init__(self, root: Path, *, clock: Clock = system_clock) -> None:
        self._memory = Memory(cache_folder(root) / "files.json")
        self._clock = clock

    def of(self, path: Path) -> tuple[int, str]:
        """Return size and digest of a file, from memory if it surely is the same.

        Raises:
            DataError: It is being written while it is read (`data-source-changing`).
            OSError: It cannot be read.
        """
        key = str(path.absolute())
        mark = _mark(path)
        known = self._memory.get(key)
        if isinstance(known, list) and len(known) == 2 and known[0] == mark:
            return mark[0], str(known[1])
        for _ in range(_TRIES):
            began = self._clock()
            digest = digest_file(path)
            before, mark = mark, _mark(path)
            if before == mark:
                # Both times: an editor may set the modification time back, the change time it cannot.
                if began - max(mark[1], mark[2]) / 1e9 > _REST:
                    self._memory.put(key, [mark, digest])
                else:
                    self._memory.forget(key)
                return mark[0], digest
        raise DataError(
            "data-source-changing",
            f"`{path}` changed while it was read",
            where=str(path),
            hint="write it elsewhere and move it here when it is whole, or run again when it is",
        )

    def save(self) -> None:
        """Write what was learned."""
        self._memory.save()


def _mark(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
