"""Whether a warm process still is what a fresh one would be: the files and libraries that it has loaded."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from modelyard._kit.source import local_sources

__all__ = ["Loaded", "Mark", "mark"]

# A file written so shortly before it was loaded may have been written again without another time (seconds).
_COARSE = 2.0
_PACKAGE = Path(__file__).resolve().parents[1]

# Time of change in nanoseconds, size and inode; none: the file is not there.
Mark = tuple[int, int, int] | None


def mark(path: Path) -> Mark:
    """Return what tells this state of a file from every other, or none if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Loaded:
    """What a process has loaded of a project, and the folders of the libraries.

    Args:
        root: Folder of the project.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        names = ("purelib", "platlib")
        libraries = {Path(folder) for name in names if (folder := sysconfig.get_path(name))}
        # Installing or removing a library changes its folder's time.
        self._marks: dict[Path, Mark] = {folder: mark(folder) for folder in libraries}
        self._outside = (*libraries, Path(sysconfig.get_path("stdlib")), _PACKAGE)
        self._entries: set[Path] = set()
        self._modules: set[str] = set()

    def note(self, entries: Iterable[Path], since: float) -> None:
        """Take in what was loaded.

        Args:
            entries: Files of the project that its steps begin in; what these import counts as well.
            since: When the loading began, seconds since 1970; a file changed later may have been loaded before.
        """
        begun = set(entries) | self._imported()
        for entry in begun - self._entries:
            self._entries.add(entry)
            for file in self._sources(entry):
                found = mark(file)
                if file not in self._marks:
                    new = found is not None and found[0] >= (since - _COARSE) * 1e9
                    self._marks[file] = None if new else found

    def changed(self) -> Path | None:
        """Return something that is not as it was when it was loaded, or none."""
        return next((path for path, was in self._marks.items() if mark(path) != was), None)

    def _imported(self) -> set[Path]:
        names = sys.modules.keys() - self._modules
        self._modules |= names
        files = {Path(f) for name in names if (f := getattr(sys.modules.get(name), "__file__", None))}
        return {f for f in files if f.suffix == ".py" and not any(f.is_relative_to(out) for out in self._outside)}

    def _sources(self, entry: Path) -> list[Path]:
        try:
            return local_sources(entry, self._root)
        except (SyntaxError, ValueError, OSError):
            return [entry.resolve()]
