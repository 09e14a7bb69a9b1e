"""A connection without a network and without a model: what is written, and what was asked."""

from __future__ import annotations

from itertools import repeat
from typing import Any

from modelyard.serving.errors import HttpError
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import Head, Heads
from modelyard.serving.limits import Limits, Unfinished

__all__ = ["Echo", "Unknowing", "Wire", "talk"]


class Route:
    def __init__(self, action: str | None) -> None:
        self.action = action


PING, ASK = Route(None), Route("infer")


class Unknowing(Heads):
    """Knows no head, so that every request is parsed."""

    def keep(self, top: bytes, head: Head, length: int) -> None: ...


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self._sent = bytearray()
        self.closed = self.aborted = self.paused = False

    @property
    def sent(self) -> bytes:
        return bytes(self._sent)

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._sent += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str) -> None: ...


class Echo:
    """Answers with what it was asked; what ends in `later` at the end of the turn, as a model does.

    Args:
        heads: What is known.
        everybody: Everybody may ask for everything.
    """

    def __init__(self, heads: Heads, *, everybody: bool = False) -> None:
        self.limits = Limits()
        self.connections: set[Any] = set()
        self.unfinished = Unfinished(self.limits.unfinished)
        self.heads = heads
        self.crowded = self.draining = self.pressed = False
        self.cors: frozenset[bytes] = frozenset({b"https://page.example"})
        self.everybody = everybody
        self.ids = repeat("one")
        self.known = 0
        self.waiting: list[Exchange] = []
        self.seen: list[tuple[Any, ...]] = []

    def admit(self, exchange: Exchange) -> None:
        exchange.id = "one"
        path, given = exchange.target.partition(b"?")[0], exchange.header(b"authorization")
        if path == b"/ping" or self.everybody:
            exchange.head.route = PING
        elif given not in (b"Bearer good", b"Bearer other"):
            raise HttpError(401, "token-unknown", "who is it")
        elif path not in (b"/predict", b"/predict/later"):
            raise HttpError(404, "route-not-found", "nothing")
        else:
            exchange.head.decided(given.decode(), "analyst", ASK, None, ())

    def again(self, exchange: Exchange) -> None:
        self.known += 1
        self.begin(exchange)

    def shed(self, head: Head) -> bytes:
        return b""

    def begin(self, exchange: Exchange) -> None:
        seen = (exchange.method, exchange.target, exchange.headers, exchange.body, exchange.caller, exchange.route)
        self.seen.append(seen)
        if exchange.target.endswith(b"/later"):
            self.waiting.append(exchange)
        else:
            self.answer(exchange)

    def answer(self, exchange: Exchange) -> None:
        exchange.reply(200, b"%s %s %s" % (exchange.method, exchange.target, exchange.body))

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for exchange in waiting:
            self.answer(exchange)

    def left(self) -> None: ...

    def refused(self, error: HttpError, exchange: Exchange | None = None) -> None:
        self.seen.append((error.status, error.code))


def talk(echo: Echo, parts: list[bytes]) -> tuple[list[tuple[Any, ...]], bytes, bool]:
    """Send parts over a new connection; return what was asked, what was answered, and whether it was closed."""
    wire, connection = Wire(), Connection(echo)
    echo.seen = []
    connection.connection_made(wire)
    for part in parts:
        if wire.closed:
            break
        connection.data_received(part)
        echo.turn()
    connection.connection_lost(None)
    return echo.seen, wire.sent, wire.closed
