"""What this machine has for steps, as far as this process may use it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from modelyard._kit.machine import cores
from modelyard.pipeline.advice import Advice, advice
from modelyard.pipeline.cgroups import above
from modelyard.pipeline.gpus import inventory

__all__ = ["Advice", "Machine", "advice", "cores", "machine", "machine_folder", "machine_name"]

# What is left to the system and to everything that is no step: a sixteenth of the memory, at most 1 GiB.
_RESERVE_PART, _RESERVE_MOST = 16, 2**30


@dataclass(frozen=True, slots=True)
class Machine:
    """What steps may have together.

    Attributes:
        cpus: Cores.
        memory: Bytes.
        gpus: Names of the GPUs.
        all_cpus: Cores of the whole machine; more than `cpus` where this process may not use all.
        all_memory: Bytes of the whole machine, likewise.
        domain: What narrows it for this process: those in one domain share `cpus` and `memory`. Empty: nothing does.
    """

    cpus: float
    memory: int
    gpus: tuple[str, ...] = ()
    all_cpus: float = 0.0
    all_memory: int = 0
    domain: str = ""


@cache
def machine() -> Machine:
    """Return what this machine has: cores by affinity and control group, memory by control group, GPUs."""
    every, here = os.cpu_count() or 1, cores()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cpus, memory, domain = float(here), total, []
    if here < every:
        domain.append(",".join(map(str, sorted(os.sched_getaffinity(0)))))
    for place in above("cpu"):
        if (most := place.cpus()) is not None and most < cpus:
            cpus = most
            domain.append(str(place.folder))
    for place in above("memory"):
        if (held := place.memory()) is not None and held < memory:
            memory = held
            domain.append(str(place.folder))
    return Machine(
        cpus=cpus,
        memory=_without_reserve(memory),
        gpus=inventory(),
        all_cpus=float(every),
        all_memory=_without_reserve(total),
        domain="|".join(domain),
    )


def _without_reserve(memory: int) -> int:
    return memory - min(memory // _RESERVE_PART, _RESERVE_MOST)


def machine_folder() -> Path:
    """Return the folder in which this user's processes agree on who has what of this machine.

    `MODELYARD_MACHINE`, else `modelyard` in `XDG_RUNTIME_DIR`, else in `~/.local/state`.
    """
    if given := os.environ.get("MODELYARD_MACHINE"):
        return Path(given)
    if (runtime := os.environ.get("XDG_RUNTIME_DIR")) and Path(runtime).is_dir():
        return Path(runtime, "modelyard")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state", "modelyard")


def machine_name() -> str:
    """Return what tells this machine from others that share the user's home, and a container from its host."""
    try:
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        space = "0"
    # Process ids mean something within one of these only.
    return f"{re.sub(r'[^A-Za-z0-9.-]', '_', platform.node()) or 'machine'}-{space}"
