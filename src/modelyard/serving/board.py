"""Counters of several processes on one port, so that each can tell of all of them.

Each process has a place in files without a name, which are made before it is forked: it writes there once a second and
when it is asked, and reads the others' then. A place outlives its process; who takes it over adds to what was counted
there, so no counter ever goes back, even after a kill with -9.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Board", "Family", "Told"]

# A record is written into the half that does not hold the newest one: whoever dies while it writes spoils none.
_HALF = 1 << 20
# Number of the record, bytes of what it holds, checksum over both and over that.
_HEAD = struct.Struct("<QII")
# How values of several processes become one; others are added up.
_TOGETHER: dict[str, Callable[[float, float], float]] = {"ready": min, "guard_alarm": max}


class Family(msgspec.Struct, array_like=True):
    """Samples of one metric.

    Attributes:
        name: Its name, without the prefix.
        kind: `counter`, `gauge` or `histogram`.
        what: What it says, in a sentence.
        samples: Name with labels -> value.
    """

    name: str
    kind: str
    what: str
    samples: dict[str, float]


class Told(msgspec.Struct, array_like=True):
    """What a process tells of itself: its metrics, and the numbers of `/stats`."""

    families: list[Family] = []
    stats: dict[str, int | float] = {}
    refused: dict[str, int] = {}

    def add(self, other: Told, *, dead: bool = False) -> None:
        """Add what another process tells; of one that is dead only what it has counted."""
        mine = {family.name: family for family in self.families}
        for family in other.families:
            if dead and family.kind == "gauge":
                continue
            if family.name not in mine:
                mine[family.name] = Family(family.name, family.kind, family.what, {})
                self.families.append(mine[family.name])
            samples, together = mine[family.name].samples, _TOGETHER.get(family.name)
            for key, value in family.samples.items():
                if together is not None and key in samples:
                    samples[key] = together(samples[key], value)
                else:
                    samples[key] = samples.get(key, 0) + value
        for name, count in other.stats.items():
            if not (dead and name == "waiting"):
                self.stats[name] = self.stats.get(name, 0) + count
        for code, count in other.refused.items():
            self.refused[code] = self.refused.get(code, 0) + count


class Board:
    """Places for what processes tell; made before they are forked.

    Args:
        places: How many processes there are at most.
    """

    def __init__(self, places: int) -> None:
        self._files = [_nameless() for _ in range(places)]
        self._mine: int | None = None
        self._before = Told()
        self._number = 0
        self._read: dict[int, Told] = {}

    def join(self) -> None:
        """Take a place that nobody has; the system frees it when this process dies."""
        for file in self._files:
            try:
                # Locks of this kind belong to the process: one that is forked does not have them.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            self._mine = file
            self._number, left = _newest(file)
            self._before.add(left, dead=True)
            return

    def close(self) -> None:
        """Let go of the files, and of the place."""
        for fd in self._files:
            os.close(fd)

    def tell(self, own: Told) -> Told:
        """Write what this process tells, and return it with what was counted in its place before."""
        whole = Told()
        whole.add(self._before)
        whole.add(own)
        if self._mine is not None:
            data = msgspec.msgpack.encode(whole)
            if _HEAD.size + len(data) <= _HALF:
                self._write(self._mine, data)
        return whole

    def _write(self, mine: int, data: bytes) -> None:
        number = self._number + 1
        head = struct.pack("<QI", number, len(data))
        record = _HEAD.pack(number, len(data), zlib.crc32(head + data)) + data
        # A full disk must not end the server: the others see what was told before, and the same half is tried again.
        with contextlib.suppress(OSError):
            if os.pwrite(mine, record, number % 2 * _HALF) == len(record):
                self._number = number

    def together(self, own: Told) -> tuple[Told, int]:
        """Return what all processes tell, and how many are alive.

        What is returned is written first: nobody ever sees a counter that was larger before.
        """
        whole, places = self.tell(own), 1
        for at, file in enumerate(self._files):
            if file == self._mine:
                continue
            number, told = _newest(file)
            if number:
                self._read[at] = told
            if at in self._read:
                alive = _held(file)
                whole.add(self._read[at], dead=not alive)
                places += alive
        return whole, places


def _nameless() -> int:
    """Make a file that nobody else can open, and that is gone with the last process that has it."""
    fd, name = tempfile.mkstemp()
    Path(name).unlink()
    return fd


def _held(file: int) -> bool:
    """Whether a process is alive in a place; asking takes no lock."""
    # struct flock: type, whence, start, length, pid; the system fills in who holds it.
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer: Any = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return bool(answer[0] != fcntl.F_UNLCK)


def _newest(fd: int) -> tuple[int, Told]:
    """Return the newest record that is whole, and its number; 0 if there is none."""
    found: tuple[int, Told] = (0, Told())
    for half in (0, 1):
        head = os.pread(fd, _HEAD.size, half * _HALF)
        if len(head) < _HEAD.size:
            continue
        number, length, check = _HEAD.unpack(head)
        data = os.pread(fd, min(length, _HALF), half * _HALF + _HEAD.size)
        if number > found[0] and zlib.crc32(head[:12] + data) == check:
            found = number, msgspec.msgpack.decode(data, type=Told)
    return found
