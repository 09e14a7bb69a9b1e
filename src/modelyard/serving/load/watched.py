"""The processes of a server while it is tried: what CPU they take, and what memory."""

from __future__ import annotations

import asyncio
import time

from modelyard._kit.processes import family, own, resident, spent

__all__ = ["Watched"]


class Watched:
    """The processes below one.

    Args:
        pid: The process; its descendants belong to it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu(self) -> float:
        """Return the CPU seconds of all until now."""
        return spent(self._all())[0]

    def memory(self) -> int:
        """Return the bytes that all made themselves: the share of a library changes with other processes."""
        every = self._all()
        return own(every) or resident(every)

    async def sample(self, seconds: float, every: float = 0.25) -> tuple[list[float], list[float]]:
        """Return seconds since the beginning, and the bytes at each of these moments."""
        begin = time.monotonic()
        times: list[float] = []
        sizes: list[float] = []
        while (now := time.monotonic() - begin) < seconds:
            times.append(now)
            sizes.append(float(self.memory()))
            await asyncio.sleep(every)
        return times, sizes

    def _all(self) -> list[int]:
        return [self._pid, *family(self._pid)]
