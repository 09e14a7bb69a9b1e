"""What is under way on one connection: requests, which are answered in the order in which they were made."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from modelyard.serving.http.answers import Answers
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import Head

if TYPE_CHECKING:
    from modelyard.serving.lane import Lane

__all__ = ["Ordered"]

# Answers that may wait for those before them on one connection, before nothing more is read from it.
_PIPELINED = 64


class Ordered(asyncio.Protocol):
    """Holds the requests of a connection, and writes their answers.

    Args:
        answers: Who answers.

    Attributes:
        began: When the request under way began, of the monotonic clock; 0 while there is none.
        idle: Since when `sweep` finds nothing under way; 0 until it does.
        lane: Where its one request waits to be answered together with others; none does.
        transport: The transport; none once it is closed.
    """

    __slots__ = ("_begun", "_full", "_paused", "_queue", "answers", "began", "idle", "lane", "transport")

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.transport: Any = None
        self.began = 0.0
        self.idle = 0.0
        self.lane: Lane | None = None
        self._queue: deque[Exchange] = deque()
        # Nothing is read; the caller does not take its answers; the parser stands in a request.
        self._paused = self._full = self._begun = False

    def pause_writing(self) -> None:
        """Read no more from a caller that does not take its answers."""
        self._full = True
        self._pause()

    def resume_writing(self) -> None:
        """Go on reading."""
        self._full = False
        self._resume()

    def hold(self, head: Head, body: bytes, began: float, name: str) -> Exchange:
        """Return a whole request with a head that is known, as the last of those that are under way.

        Args:
            head: Its head.
            body: Its body.
            began: When it came, of the monotonic clock.
            name: Its id.
        """
        self.lane = None
        exchange = Exchange(self, head, body, began, name)
        self._queue.append(exchange)
        return exchange

    def answered(self, exchange: Exchange) -> None:
        """Write what is ready, in the order of the requests."""
        queue, transport = self._queue, self.transport
        if transport is None or not queue:
            return
        if queue[0] is exchange and exchange._keep_alive:
            queue.popleft()
            transport.write(exchange._data)
        while queue and (data := queue[0]._data) is not None:
            done = queue.popleft()
            transport.write(data)
            if not done._keep_alive:
                queue.clear()
                self._end()
                return
        if not queue and not self._begun:
            self.began = 0.0
        if self._paused and len(queue) < _PIPELINED // 2:
            self._resume()

    def ending(self, exchange: Exchange) -> None:
        """End with an answer, as the server does, if nothing was asked after it."""
        if self._queue and self._queue[-1] is exchange:
            self._finish()

    def _finish(self) -> None:
        """Take nothing more, and close once all that was asked is answered."""
        raise NotImplementedError

    def _end(self) -> None:
        """Close."""
        raise NotImplementedError

    def _bound(self) -> None:
        """Read nothing more while too much waits to be answered."""
        if len(self._queue) >= _PIPELINED:
            self._pause()

    def _pause(self) -> None:
        if self.transport is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self.transport is not None and self._paused and not self._full:
            self._paused = False
            self.transport.resume_reading()
