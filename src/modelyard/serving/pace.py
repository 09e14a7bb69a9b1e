"""How many rows are worked off in some seconds, as it was seen."""

from __future__ import annotations

__all__ = ["Pace"]

# As many rows as there may be.
ANY = 1 << 30


class Pace:
    """Rows that some seconds are enough for.

    Any number is, before one took longer. From then on it follows what was seen: down at once, up by a quarter at most.

    Args:
        seconds: The seconds.
        least: It never falls below that many rows.

    Attributes:
        rows: How many rows.
    """

    __slots__ = ("_least", "_seconds", "rows")

    def __init__(self, seconds: float, *, least: int) -> None:
        self._seconds = seconds
        self._least = least
        self.rows = ANY

    def learn(self, rows: int, took: float) -> None:
        """Take how many seconds so many rows took."""
        more = self.rows + max(1, self.rows // 4)
        if took > self._seconds:
            self.rows = max(self._least, min(int(rows * self._seconds / took), more))
        elif rows >= self.rows:
            self.rows = more
