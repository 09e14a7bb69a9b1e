"""The fast lane: gathers requests that differ in their rows alone, and has those of a turn answered together.

A request comes here straight from its connection: what was decided on its head a moment ago holds for it, and what is
decided for every request (is the endpoint switched off, is there room in the log, which version answers?) is decided
once a turn. Whatever cannot be answered together goes the way of all others, from the beginning.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from modelyard.serving.batch import ENOUGH, FEWEST, INLINE_ROWS
from modelyard.serving.http.heads import Head
from modelyard.serving.together import alike, answer_together

if TYPE_CHECKING:
    from modelyard.serving.endpoint import Endpoint
    from modelyard.serving.http.order import Ordered

    # Whose it is, its head and body, when it began, and its id.
    Waiting = tuple[Ordered, Head, bytes, float, str]

__all__ = ["Lane"]

# Requests that go the other way after a turn that could not be answered together: the first time, and at most.
_SHORT, _LONG = 32, 4096
# So many come in before it is asked again, unless room is taken elsewhere meanwhile.
_AT_ONCE = 16


class Lane:
    """The fast lane of one endpoint.

    Args:
        endpoint: The endpoint.
        most: Requests that may be under way at once.

    Attributes:
        gathered: Requests that wait for the end of the turn, one of a connection.
        room: How many may come in without a question, until somebody else asks for room; `opens` is asked before all
            others.
    """

    def __init__(self, endpoint: Endpoint, most: int) -> None:
        self.gathered: list[Waiting] = []
        self.room = 0
        self._endpoint = endpoint
        self._models = endpoint.models
        self._most = most
        # Requests at the last look; 0: none is to come.
        self._seen = 0
        # Requests that still go the other way, and how many will after the next turn that has to.
        self._rests, self._next = 0, _SHORT

    def counted(self) -> int:
        """Return how many wait for the end of the turn, to who takes room beside them: the next is asked about anew."""
        self.room = 0
        return len(self.gathered)

    def opens(self, head: Head) -> bool:
        """Say whether a request comes in that `room` says nothing of, and count it where its caller is limited.

        Args:
            head: Its head.
        """
        free = self._free()
        if free <= 0 or not (self.gathered or self._begins()):
            return False
        limited = self._endpoint.limited
        if limited and not self._endpoint.takes(head.caller):
            return False  # It is told so the other way.
        if not self._seen:
            self._seen = 1
            asyncio.get_running_loop().call_soon(self._look)
        self.room = 1 if limited else min(free, _AT_ONCE)
        return True

    def _begins(self) -> bool:
        """Say whether a turn begins, or requests go the other way just now."""
        if self._rests:
            self._rests -= 1
            return False
        return alike(self._models.default)

    def _free(self) -> int:
        """Return how many requests more may be under way, and be answered in this turn."""
        models = self._models
        if not models.loaded:
            return 0
        return min(self._most - models.waiting, models.default.batcher.room) - len(self.gathered)

    def give_back(self, connection: Ordered) -> None:
        """Have the request of a connection go the other way: something has happened there that concerns it."""
        for at, (whose, head, body, began, name) in enumerate(self.gathered):
            if whose is connection:
                del self.gathered[at]
                connection.answers.begin(connection.hold(head, body, began, name))
                return

    def _look(self) -> None:
        """Let the loop read once more if the last time brought something, else end the turn."""
        count = len(self.gathered)
        if self._seen < count < ENOUGH:
            self._seen = count
            asyncio.get_running_loop().call_soon(self._look)
            return
        gathered, self.gathered, self.room, self._seen = self.gathered, [], 0, 0
        if not count:
            return
        began = time.thread_time() if count >= FEWEST else 0.0
        batcher = self._models.default.batcher if self._models.loaded else None
        # What would keep the loop is for the thread, however it is cut.
        whole = batcher is not None and batcher.keeps_up(count)
        done, took = 0, 0.0
        for at in range(0, count, INLINE_ROWS):
            group = gathered[at : at + INLINE_ROWS]
            seconds = self._do(group, together=whole)
            whole = seconds is not None
            if seconds is not None:
                done, took = done + len(group), took + seconds
        if done and batcher is not None:
            batcher.learn(done, took, time.thread_time() - began if began and whole else 0.0)
        if whole:
            self._next = max(_SHORT, self._next // 2)
        else:
            self._rests, self._next = self._next, min(2 * self._next, _LONG)

    def _do(self, group: list[Waiting], *, together: bool) -> float | None:
        """Answer a part of a turn, and return the seconds of its run; none: each was asked for by itself."""
        connections, heads, bodies, began, ids = zip(*group, strict=True)
        made: tuple[list[bytes], float] | None = None
        if together and not self._models.killed and not connections[0].answers.draining:
            service = self._models.default
            try:
                made = answer_together(service, list(ids), heads, list(bodies), began)
            except Exception as error:  # noqa: BLE001 - every error has its answer
                for connection, head, body, since, name in group:
                    service.fail(connection.hold(head, body, since, name), error)
                return None
        if made is None:
            for connection, head, body, since, name in group:
                connection.answers.begin(connection.hold(head, body, since, name))
            return None
        answers, seconds = made
        for connection, data in zip(connections, answers, strict=True):
            connection.lane = None
            connection.began = 0.0
            try:
                connection.transport.write(data)
            except Exception as error:  # noqa: BLE001 - those after it are answered all the same
                _cut(connection, error)
        return seconds


def _cut(connection: Ordered, error: Exception) -> None:
    """End a connection that takes no answer."""
    told = {"message": "an answer was not written", "exception": error}
    asyncio.get_running_loop().call_exception_handler(told)
    connection.transport.abort()
