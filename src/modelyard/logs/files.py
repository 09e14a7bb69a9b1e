"""The files of the logs: `.modelyard/logs/DAY.NUMBER.jsonl`, appended to by any number of processes.

A file is never renamed or rewritten: a place in the logs is a file and an offset for as long as the file is there, so
that readers and senders need nothing else. A new file begins with each day (UTC) and when one is large; old ones are
deleted by age, and the oldest when all of them together are too large.
"""

from __future__ import annotations

import os
import re
import threading
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.files import write_atomic
from modelyard.logs.line import Line

__all__ = ["KEEP_BYTES", "KEEP_SECONDS", "LogFiles", "logs_folder", "logs_of", "segments"]

KEEP_SECONDS = 30 * 86_400.0
KEEP_BYTES = 1_000_000_000

_DAY = 86_400
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d+)\.jsonl")
_LARGE = 32 << 20
# Files that all which is kept is cut into, at least.
_PARTS = 4
_encode = msgspec.json.Encoder().encode


class _Kept(msgspec.Struct):
    """For how long lines stay: in a file, because every process that writes has to know."""

    seconds: float = KEEP_SECONDS
    bytes: int = KEEP_BYTES


def logs_folder(root: Path) -> Path:
    """Return the folder of the logs; `root` is the folder of the project."""
    return root / ".modelyard" / "logs"


@cache
def logs_of(root: Path) -> LogFiles:
    """Return the logs of a project, for writing; nothing is made before the first line."""
    return LogFiles(logs_folder(root))


def segments(folder: Path) -> list[Path]:
    """Return the files of the logs in the order of time."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
    except FileNotFoundError:
        return []
    found = [(match[1], int(match[2]), match[0]) for name in names if (match := _NAME.fullmatch(name))]
    return [folder / name for *_, name in sorted(found)]


class LogFiles:
    """Appends lines; safe with several threads and processes, since each append is one write at the end of a file.

    Nothing here raises: a full disk takes lines, never a step.

    Args:
        folder: Where the files are; made at the first line.
        clock: Source of the time.
        large: Bytes after which another file is begun; a quarter of what all may take, where that is less.

    Attributes:
        trouble: Why lines cannot be written at the moment; empty when they can.
        lost: How many could not be written.
    """

    def __init__(self, folder: Path, *, clock: Clock = system_clock, large: int = _LARGE) -> None:
        self.folder = folder
        self.clock = clock
        self.trouble = ""
        self.lost = 0
        self._most = self._large = large
        self._fd = -1
        self._day = -1
        self._torn = False
        self._lock = threading.Lock()

    def append(self, *lines: Line) -> bool:
        """Write lines; say whether they are written."""
        data = b"".join(_encode(line) + b"\n" for line in lines)
        # A process that was forked while another thread held the lock must not wait for ever.
        held = self._lock.acquire(timeout=1.0)
        try:
            self._write(data)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            self.lost += len(lines)
            self._close()
            return False
        finally:
            if held:
                self._lock.release()
        self.trouble = ""
        return True

    def keep(self, *, seconds: float, size: int) -> None:
        """Say for how long lines stay, and delete what is too old or too much.

        Args:
            seconds: Age at which a file is deleted.
            size: Bytes of all files together above which the oldest are deleted; the newest always stays.
        """
        wanted = _Kept(seconds, size)
        try:
            if wanted != self._kept() and (self.folder.is_dir() or wanted != _Kept()):
                self._make()
                write_atomic(self.folder / "keep.json", _encode(wanted), mode=0o600)
        except OSError as error:
            self.trouble = error.strerror or str(error)
        self.prune()

    def prune(self, *, room: int = 0) -> None:
        """Delete what is too old or too much.

        Args:
            room: Bytes that are to be free for what comes.
        """
        kept = self._kept()
        sizes: list[tuple[Path, int]] = []
        for path in segments(self.folder):
            ended = datetime.fromisoformat(path.name[:10]).replace(tzinfo=UTC).timestamp() + _DAY
            if ended + kept.seconds <= self.clock():
                path.unlink(missing_ok=True)
            else:
                sizes.append((path, _size(path)))
        total = sum(size for _, size in sizes)
        for path, size in sizes[:-1]:
            if total <= kept.bytes - room:
                break
            path.unlink(missing_ok=True)
            total -= size

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        with self._lock:
            self._close()

    def _write(self, data: bytes) -> None:
        day = int(self.clock() // _DAY)
        if self._fd >= 0:
            stat = os.fstat(self._fd)
            # Somebody may have deleted it, and others may have filled it.
            if day != self._day or stat.st_size >= self._large or stat.st_nlink == 0:
                self._close()
        if self._fd < 0:
            self._open(day)
        if self._torn:
            # A full disk cut a line off; ours begins on its own.
            data = b"\n" + data
        written = os.write(self._fd, data)
        self._torn = written < len(data)
        if self._torn:
            os.write(self._fd, data[written:])
            self._torn = False

    def _open(self, day: int) -> None:
        self._make()
        self._large = min(self._most, max(1, self._kept().bytes // _PARTS))
        text = datetime.fromtimestamp(day * _DAY, UTC).strftime("%Y-%m-%d")
        number = max((int(p.name.split(".")[1]) for p in segments(self.folder) if p.name.startswith(text)), default=0)
        path = self.folder / f"{text}.{number:03d}.jsonl"
        if _size(path) >= self._large:
            path = self.folder / f"{text}.{number + 1:03d}.jsonl"
        new = not path.exists()
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._day = day
        if new:
            self.prune(room=self._large)

    def _make(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _kept(self) -> _Kept:
        try:
            return msgspec.json.decode((self.folder / "keep.json").read_bytes(), type=_Kept)
        except (OSError, msgspec.MsgspecError):
            return _Kept()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
