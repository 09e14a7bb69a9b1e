"""What the system says of processes: memory and CPU of one and of all below it (Linux)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Load", "load_of"]

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Load:
    """What a process and those below it use.

    Attributes:
        memory: Bytes, with shared pages counted in part to each who shares them where the system tells, else in whole.
        cpu_seconds: CPU time since they began.
        processes: How many there are.
    """

    memory: int
    cpu_seconds: float
    processes: int


def load_of(pid: int) -> Load | None:
    """Return what a process and all below it use; none if it is not there, or the system does not tell."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in _PROC.glob("[0-9]*"):
        try:
            # The name in brackets may hold anything, so it is read from behind.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
    if pid not in parents:
        return None
    tree, todo = {pid}, [pid]
    while todo:
        parent = todo.pop()
        below = {child for child, above in parents.items() if above == parent} - tree
        tree |= below
        todo += below
    cpu = sum(ticks[one] for one in tree) / os.sysconf("SC_CLK_TCK")
    return Load(sum(map(_memory, tree)), cpu, len(tree))


def _memory(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
