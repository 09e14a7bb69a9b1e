"""Where this process stands in the system's control groups, versions 1 and 2; see cgroups(7)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Place", "above", "parent_for_memory"]

# Version 1 says "no limit" with the largest number of whole pages.
_ENDLESS = 1 << 60


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of control groups.

    Attributes:
        folder: The folder.
        version: 1 or 2.
    """

    folder: Path
    version: int

    def number(self, name: str) -> int | None:
        """Return the number in one of its files; none where there is none, or where it means "no limit"."""
        try:
            text = (self.folder / name).read_text().split()[0]
        except (OSError, IndexError):
            return None
        return int(text) if text.lstrip("-").isdigit() and 0 <= int(text) < _ENDLESS else None

    def memory(self) -> int | None:
        """Return how many bytes it may hold; none: no limit."""
        return self.number("memory.max" if self.version == 2 else "memory.limit_in_bytes")

    def cpus(self) -> float | None:
        """Return how many cores' worth of time it may use; none: no limit."""
        if self.version == 1:
            quota, period = self.number("cpu.cfs_quota_us"), self.number("cpu.cfs_period_us")
            return quota / period if quota and period else None
        try:
            quota_text, period_text = (self.folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            return None
        return int(quota_text) / int(period_text) if quota_text.isdigit() else None


def above(controller: str, *, process: Path = Path("/proc/self")) -> Iterator[Place]:
    """Yield the control groups that hold this process, its own first, up to the highest that can be seen.

    Args:
        controller: `memory` or `cpu`.
        process: Folder of the process in `/proc`.
    """
    try:
        lines = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        version = 1 if names else 2
        if names and controller not in names.split(","):
            continue
        for root, mount in _mounts(mounts, controller if version == 1 else ""):
            # In a container the mount may show only our part of the tree, and the path may start above it.
            inside = path.removeprefix(root) if root != "/" and path.startswith(root) else path
            folder = mount / inside.strip("/")
            if not folder.is_dir():
                folder = mount
            while True:
                yield Place(folder, version)
                if folder == mount:
                    break
                folder = folder.parent


def _mounts(lines: list[str], controller: str) -> Iterator[tuple[str, Path]]:
    """Yield root and place of the mounts of a controller of version 1, or of version 2 for none; see proc(5)."""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if kind[0] == ("cgroup" if controller else "cgroup2") and (not controller or controller in kind[-1].split(",")):
            yield fields[3], Path(fields[4])


def parent_for_memory() -> Place | None:
    """Return a control group in which we may make others with memory limits and move our workers there; or none."""
    own = list(above("memory"))
    for i, place in enumerate(own):
        if place.version == 1:
            usable = (place.folder / "memory.limit_in_bytes").exists() and os.access(place.folder, os.W_OK)
            return place if usable and i == 0 else None
        # Only one that hands the controller on can limit what is below it, and one that does holds no processes:
        # beside us, not below us, unless we stand at the very top. To move a process there, its next common
        # control group must be ours to write as well.
        try:
            handed_on = "memory" in (place.folder / "cgroup.subtree_control").read_text().split()
        except OSError:
            return None
        if handed_on:
            writable = os.access(place.folder, os.W_OK) and os.access(place.folder / "cgroup.procs", os.W_OK)
            return place if writable and i <= 1 else None
    return None
