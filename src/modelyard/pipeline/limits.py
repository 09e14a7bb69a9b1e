"""Hold a worker to the memory that its step asked for, and tell "out of memory" from every other end.

Where this user may make control groups, each worker has one of its own: the kernel itself refuses the byte too many,
and counts what it killed. Elsewhere the worker's guard looks at the memory of its processes every few milliseconds.
Address space is not limited (`RLIMIT_AS`, `RLIMIT_DATA`): Polars, OpenBLAS and every thread reserve far more than they
ever use.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from modelyard._kit.text import size_text
from modelyard.pipeline.cgroups import Place, parent_for_memory
from modelyard.pipeline.execute import Failure
from modelyard.records import Step

__all__ = ["Cage", "Cages", "out_of_memory", "system_kills"]

_PREFIX = "modelyard-"
_numbers = itertools.count(1)


class Cage:
    """A control group for one worker.

    Args:
        place: The folder of control groups that it is made in.
        name: Name of its folder.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._folder = place.folder / name
        self._folder.mkdir()
        self._limit = 0
        if place.version == 2:
            # A child that was killed alone would leave the step waiting for it.
            self._write("memory.oom.group", "1")

    @property
    def tasks(self) -> str:
        """The file that takes process ids."""
        return str(self._folder / "cgroup.procs")

    def limit(self, most: int) -> bool:
        """Hold it to so many bytes, 0: to none; say whether the kernel took it."""
        if most == self._limit:
            return True
        self._limit = -1
        if self._place.version == 2:
            done = self._write("memory.max", str(most) if most else "max")
            # Without swap there is no such file, and nothing to forbid.
            self._write("memory.swap.max", "0" if most else "max")
        else:
            value = str(most or -1)
            # Memory with swap is never less than memory: which of the two comes first depends on the direction.
            swap = self._write("memory.memsw.limit_in_bytes", value) if not most else False
            done = self._write("memory.limit_in_bytes", value)
            if most and done and not swap:
                self._write("memory.memsw.limit_in_bytes", value)
        if done:
            self._limit = most
        return done

    def kills(self) -> int:
        """Return how often the kernel has killed in it because memory ran out."""
        return _count(self._folder / ("memory.events" if self._place.version == 2 else "memory.oom_control"))

    def remove(self) -> None:
        """Take it away; one that still holds a process stays."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _write(self, name: str, value: str) -> bool:
        try:
            (self._folder / name).write_text(value)
        except OSError:
            return False
        return True


class Cages:
    """Makes cages, where that is allowed.

    Args:
        place: Where; none: looked for at first use.
    """

    def __init__(self, place: Place | None = None) -> None:
        self._place = place
        self._looked = place is not None

    def make(self) -> Cage | None:
        """Return a new cage; none where control groups cannot be made."""
        if not self._looked:
            self._looked = True
            self._place = parent_for_memory()
            if self._place is not None:
                _sweep(self._place)
        if self._place is None:
            return None
        try:
            return Cage(self._place, f"{_PREFIX}{os.getpid()}-{next(_numbers)}")
        except OSError:
            self._place = None
            return None


def _sweep(place: Place) -> None:
    """Take away what runners left that were killed together with their guards."""
    for folder in place.folder.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def system_kills() -> int:
    """Return how often this system has killed a process because memory ran out."""
    return _count(Path("/proc/vmstat"))


def _count(file: Path) -> int:
    """Return the value of `oom_kill` in one of the kernel's files of names and numbers, 0 where there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def out_of_memory(step: Step, *, reached: int = 0, before: Failure | None = None) -> Failure:
    """Return the failure of a step that wanted more memory than it may have.

    Args:
        step: The step, with what it asked for.
        reached: Bytes that it held when it was stopped; 0: all that it asked for.
        before: What the step itself said of it, if it came to that: its place and trace are kept.
    """
    asked = step.resources.memory
    if not asked:
        message = f"step `{step.name}` wanted more memory than this machine had left"
        hint = "give it a limit (`memory`), so that it waits for room; work in smaller parts, or take a larger machine"
    else:
        held = f" and held {size_text(reached)}" if reached > asked else ", held all of it and wanted more"
        message = f"step `{step.name}` asked for {size_text(asked)} of memory{held}"
        more = size_text(_more(max(asked, reached)))
        hint = f"ask for more (`memory: {more}`), or allow one further attempt with more (`retries`, `memory: {more}`)"
    where, trace = (before.where, before.trace) if before else ("", "")
    return Failure(code="out-of-memory", message=message, where=where, hint=hint, trace=trace)


def _more(reached: int) -> int:
    """Return what to ask for next: double, in a round number of 100 MB."""
    return -(-2 * reached // 100_000_000) * 100_000_000
