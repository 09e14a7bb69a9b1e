"""The price table of a schedule as it stands now: read again when its file changes."""

from __future__ import annotations

from pathlib import Path

from modelyard._kit.times import Rates, Wrong, Zone, rates
from modelyard.spec.timing import read_text

__all__ = ["PriceFile"]


class PriceFile:
    """A price table in a file that somebody else replaces, every day say.

    A table that cannot be read does not keep a run from starting: it starts as if there were none, and says so.

    Args:
        name: The file, relative to the project.
        root: Folder of the project.
        zone: Whose clocks its times are read by.
    """

    def __init__(self, name: str, root: Path, zone: Zone) -> None:
        self._name = name
        self._root = root
        self._zone = zone
        self._state: tuple[int, int] | None = None
        self._read: tuple[Rates | None, str] = (None, "")

    def now(self) -> tuple[Rates | None, str]:
        """Return the table, or none and why it cannot be used."""
        try:
            found = (self._root / Path(self._name).expanduser()).stat()
            state = (found.st_mtime_ns, found.st_size)
        except OSError:
            state = None
        if state is None or state != self._state:
            self._read = self._load()
            self._state = state
        return self._read

    def _load(self) -> tuple[Rates | None, str]:
        try:
            return rates(read_text(self._name, self._root), self._zone), ""
        except Wrong as wrong:
            line = f"line {wrong.line}: " if wrong.line else ""
            return None, f"no prices: `{self._name}`: {line}{wrong.message}"
