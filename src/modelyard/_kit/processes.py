"""Processes as the kernel shows them in `/proc`: who descends from whom, what they hold and have used; see proc(5).

Imports nothing but the standard library and stays small: the guard of every worker loads it.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path

__all__ = ["born", "family", "own", "proportional", "resident", "spent"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def born(pid: int) -> str:
    """Return what tells a process from all others that had or will have its id; empty if it is dead.

    Clock ticks since the start of the system, and which start that was.
    """
    try:
        fields = _stat(pid)
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else f"{fields[19].decode()}@{_boot()}"


def family(pid: int) -> list[int]:
    """Return a process's descendants, without itself."""
    found: list[int] = []
    front = [pid]
    while front:
        front = [child for one in front for child in _children(one)]
        found += front
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.scandir(f"/proc/{pid}/task"):
            found += map(int, Path(thread.path, "children").read_bytes().split())
    except OSError:
        # It ended while we looked, or this kernel keeps no such lists (CONFIG_PROC_CHILDREN).
        if not Path("/proc/self/task", str(os.getpid()), "children").exists():
            return [child for child, parent in _parents() if parent == pid]
    return found


def _parents() -> list[tuple[int, int]]:
    pairs = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pairs.append((int(folder.name), int(_stat(int(folder.name))[1])))
    return pairs


def _stat(pid: int) -> list[bytes]:
    """Return the fields of `/proc/PID/stat` after the name, which may hold blanks and brackets; see proc(5)."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def resident(pids: list[int]) -> int:
    """Return the resident bytes of processes together; pages that several share count once for each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return total


def proportional(pids: list[int]) -> int:
    """Return the same with each shared page divided among those who share it: exact, and dear."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def own(pids: list[int]) -> int:
    """Return the bytes that processes made themselves: of mapped files, which others map too, none count; dear as well.

    0 where the system does not say (Linux before 5.4).
    """
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
                if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    return total


def spent(pids: list[int]) -> tuple[float, int, int]:
    """Return CPU seconds, bytes read and bytes written of processes and of their children that have ended."""
    cpu = read = written = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            cpu += sum(map(int, _stat(pid)[11:15]))
            for line in Path(f"/proc/{pid}/io").read_bytes().splitlines():
                name, _, value = line.partition(b": ")
                read += int(value) if name == b"read_bytes" else 0
                written += int(value) if name == b"write_bytes" else 0
    return cpu / _TICKS, read, written
