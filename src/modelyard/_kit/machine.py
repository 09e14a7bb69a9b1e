"""What kind of machine this is: timings of one kind say something of another machine of that kind, and of no other."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["cores", "kind_of_machine", "worked"]

# Of the first line of `/proc/stat`, see proc(5): user, nice, system, irq, softirq, and steal, what the host has taken.
_WORK = (1, 2, 3, 6, 7, 8)


def cores() -> int:
    """Return on how many cores this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kind_of_machine() -> dict[str, Any]:
    """Return the processor by its name, and on how many cores of it this process may run.

    Not the name of the machine: that of a container is another one after each start.
    """
    return {"processor": _processor(), "cores": cores()}


def worked() -> tuple[float, int]:
    """Return the CPU seconds that this machine has worked until now, whoever for, and how many processors it has.

    What a host takes from a virtual machine counts as work. Both are 0 where the system does not tell.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        whole = lines[0].split()
        seconds = sum(int(whole[at]) for at in _WORK) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0, 0
    return seconds, sum(line.startswith("cpu") for line in lines) - 1


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
