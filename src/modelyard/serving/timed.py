"""How long the runs of a model took, for the statistics of the open protocol."""

from __future__ import annotations

__all__ = ["Timed"]


class Timed:
    """Counts runs by the clock on the wall, from the rows of a group to the model's output.

    Args:
        most: Rows up to which runs are counted by their size.

    Attributes:
        requests: Requests that were in them.
        seconds: What each of these took part in, all together.
        sizes: Rows of a run -> how many runs, and their seconds.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.requests = 0
        self.seconds = 0.0
        self.sizes: dict[int, tuple[int, float]] = {}

    def add(self, rows: int, requests: int, seconds: float) -> None:
        """Count a run."""
        self.requests += requests
        self.seconds += requests * seconds
        if rows <= self._most:
            runs, before = self.sizes.get(rows, (0, 0.0))
            self.sizes[rows] = runs + 1, before + seconds
