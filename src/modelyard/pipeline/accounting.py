"""What a step uses of the machine, by the kernel's own accounting.

CPU time and bytes come from `getrusage` (one system call, no file is read); bytes are those that went to and came from
disks, not those that the page cache had. In a worker the highest resident memory is the step's own, because the
kernel's mark is set back before each step (proc(5), `clear_refs`); the runner leaves its process's mark alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

from modelyard._kit.processes import family, spent
from modelyard.records import Usage

__all__ = ["Meter", "own_peaks"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
# `getrusage` counts blocks of this size, whatever the disk's are.
_BLOCK = 512
# Shorter than this, a step is not worth reading a file for.
_SHORT = 0.01


class _Here:
    """What this process knows of itself."""

    marks: int | None = None  # the open file that sets the mark of the highest memory back
    resident: int = 0  # resident bytes when they were last looked at


def own_peaks() -> None:
    """Let each `Meter` of this process begin with a peak of its own, and count children; for workers only."""
    try:
        _Here.marks = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:  # not allowed everywhere: the peak is then that of the process until now
        _Here.marks = -1


class Meter:
    """Measures what this process uses from now on."""

    __slots__ = ("_children", "_offspring", "_own")

    def __init__(self) -> None:
        if _Here.marks is not None:
            self._offspring = _offspring()
            if _Here.marks >= 0:
                os.write(_Here.marks, b"5")
        else:
            self._offspring = 0.0
        self._own = getrusage(RUSAGE_SELF)
        self._children = getrusage(RUSAGE_CHILDREN)

    def usage(self, seconds: float) -> Usage:
        """Return what was used since the meter was made.

        Args:
            seconds: Wall time since then.
        """
        own, children = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        cpu = own.ru_utime + own.ru_stime - self._own.ru_utime - self._own.ru_stime
        cpu += children.ru_utime + children.ru_stime - self._children.ru_utime - self._children.ru_stime
        if _Here.marks is not None:
            cpu = max(0.0, cpu + _offspring() - self._offspring)
            peak = own.ru_maxrss * 1024
        else:
            peak = self._peak(own.ru_maxrss, seconds)
        read = own.ru_inblock - self._own.ru_inblock + children.ru_inblock - self._children.ru_inblock
        written = own.ru_oublock - self._own.ru_oublock + children.ru_oublock - self._children.ru_oublock
        return Usage(
            cpu_seconds=cpu,
            gb_seconds=peak * seconds / 1e9,
            peak_bytes=peak,
            read_bytes=read * _BLOCK,
            written_bytes=written * _BLOCK,
        )

    def _peak(self, mark: int, seconds: float) -> int:
        """Return the highest memory where the mark is that of the whole process: what it held at the end, or more."""
        if not _Here.resident or seconds >= _SHORT:
            _Here.resident = int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
        return max(mark * 1024, _Here.resident) if mark > self._own.ru_maxrss else _Here.resident


def _offspring() -> float:
    """Return the CPU seconds of the children that are alive, and of theirs."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0.0  # the usual case, for the price of one system call
    return spent(family(os.getpid()))[0]
