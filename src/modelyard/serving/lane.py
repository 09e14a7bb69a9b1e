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
from modelyard.serving.errors import HttpError
from modelyard.serving.http.exchange import fail
from modelyard.serving.http.heads import Head
from modelyard.serving.together import together

if TYPE_CHECKING:
    from modelyard.serving.endpoint import Endpoint
    from modelyard.serving.http.order import Ordered

    # Whose it is, its head and body, when it began, and its id.
    Waiting = tuple[Ordered, Head, bytes, float, str]

__all__ = ["Lane"]

# Requests that go the other way after a turn that could not be answered together: the first time, and at most.
_SHORT, _LONG = 32, 4096


class Lane:
    """The fast lane of one endpoint.

    Args:
        endpoint: The endpoint.
        most: Requests that may be under way at once.

    Attributes:
        gathered: Requests that wait for the end of the turn, one of a connection.
        room: How many may come in without a question; `opens` is asked before the first of a turn, and before each
            of a caller that may not make any number.
    """

    def __init__(self, endpoint: Endpoint, most: int) -> None:
        self.gathered: list[Waiting] = []
        self.room = 0
        self._endpoint = endpoint
        self._models = endpoint.models
        self._most = most
        # Requests at the last look, and how many this turn may have.
        self._seen = self._holds = 0
        # Requests that still go the other way, and how many will after the next turn that has to.
        self._rests, self._next = 0, _SHORT

    @property
    def count(self) -> int:
        """Requests that wait for the end of the turn."""
        return len(self.gathered)

    @property
    def busy(self) -> bool:
        """Whether the turn has as many as can be answered in one."""
        return len(self.gathered) >= max(self._holds, FEWEST)

    def opens(self, head: Head) -> bool:
        """Say whether a request comes in that `room` says nothing of, and count it where its caller is limited.

        Args:
            head: Its head.
        """
        limited = self._endpoint.limited
        if not self.gathered:
            if self._rests:
                self._rests -= 1
                return False
            self._holds = self._capacity()
        elif not limited:
            return False
        if len(self.gathered) >= self._holds:
            return False
        if limited:
            try:
                self._endpoint.take(head.caller)
            except HttpError:
                return False  # It is told so the other way.
        if not self.gathered:
            self._seen = 1
            asyncio.get_running_loop().call_soon(self._look)
        self.room = 1 if limited else self._holds
        return True

    def _capacity(self) -> int:
        """Return how many requests a turn that begins now may have."""
        if not self._models.loaded:
            return 0
        batcher = self._models.default.batcher
        return min(self._most - batcher.waiting, batcher.turn.rows)

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
        if self._seen < count < min(ENOUGH, self._holds):
            self._seen = count
            asyncio.get_running_loop().call_soon(self._look)
            return
        gathered, self.gathered, self.room = self.gathered, [], 0
        began = time.thread_time() if count >= FEWEST else 0.0
        whole = True
        for at in range(0, count, INLINE_ROWS):
            whole &= self._do(gathered[at : at + INLINE_ROWS])
        if not whole:
            self._rests, self._next = self._next, min(2 * self._next, _LONG)
            return
        self._next = _SHORT
        if began:
            self._models.default.batcher.turn.learn(count, time.thread_time() - began)

    def _do(self, group: list[Waiting]) -> bool:
        """Answer a part of a turn; no: not all of it together."""
        connections, heads, bodies, began, ids = zip(*group, strict=True)
        models = self._models
        answers: list[bytes] | None = None
        try:
            if models.loaded and not models.killed and not connections[0].answers.draining:
                answers = together(models.default, list(ids), heads, list(bodies), began)
        except Exception as error:  # noqa: BLE001 - every error has its answer
            for connection, head, body, since, name in group:
                fail(connection.hold(head, body, since, name), error)
            return False
        if answers is None:
            for connection, head, body, since, name in group:
                connection.answers.begin(connection.hold(head, body, since, name))
            return False
        for connection, answer in zip(connections, answers, strict=True):
            connection.lane = None
            connection.began = 0.0
            connection.transport.write(answer)
        return True
