"""Heads of requests that were admitted a moment ago: the same bytes need not be parsed and decided on again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard.serving.http.exchange import Exchange

__all__ = ["END", "Head", "Heads"]

# What ends a head.
END = b"\r\n\r\n"

# Heads that are remembered: so long, so many, and of this size at most.
_HEADS_SECONDS, _HEADS_KEPT, _HEAD_BYTES = 0.5, 4096, 4096
# Headers that make one request unlike the next, or its body unlike a plain one.
_PLAIN = frozenset((b"expect", b"transfer-encoding", b"x-request-id", b"upgrade"))
# Headers that say nothing of what is asked for or how it shall be answered, with these values if one is named.
_USUAL = frozenset(
    (b"accept", b"authorization", b"connection", b"content-length", b"content-type", b"host", b"user-agent")
)
_VALUES = ((b"accept", b"*/*"), (b"content-type", b"application/json"))


class Head:
    """The line and headers of a request that was admitted, and what came of them.

    Attributes:
        usual: Its body alone says what is asked for: JSON comes, and JSON goes.
        refusal: What such a request is told while there is no room, ready but for its id; how long that is without
            the id; and the label by which it is counted.
    """

    __slots__ = (
        "caller",
        "headers",
        "length",
        "method",
        "model",
        "refusal",
        "role",
        "route",
        "target",
        "usual",
        "version",
    )

    def __init__(self, exchange: Exchange, length: int) -> None:
        self.method = exchange.method
        self.target = exchange.target
        self.headers = exchange.headers
        self.caller = exchange.caller
        self.role = exchange.role
        self.route = exchange.route
        self.model = exchange.model
        self.version = exchange.version
        self.length = length
        headers = exchange.headers
        plain = exchange.method != b"HEAD" and _USUAL.issuperset(headers)
        self.usual = plain and all(headers.get(name, value) == value for name, value in _VALUES)
        self.refusal: tuple[bytes, int, tuple[str, str, str, int]] | None = None


class Heads:
    """Heads of this half of a second, by their bytes: a caller's requests differ in their bodies.

    The same bytes mean the same to the parser, so they need not be parsed again; and a token that is revoked is refused
    within a second, since what was decided is forgotten twice a second.

    Attributes:
        known: What is known, by the bytes of a head without its end; after `until` it is not to be used.
        until: When it is forgotten, of the monotonic clock.
    """

    __slots__ = ("_age", "known", "until")

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        self._age = 0
        self.until = 0.0

    def age(self, now: float) -> int:
        """Return a number that changes whenever all is forgotten, for those who remember what was decided elsewhere."""
        if now > self.until:
            self.renew(now)
        return self._age

    def renew(self, now: float) -> None:
        """Begin anew; whoever looks into `known` after `until` calls this before."""
        self.forget()
        self.until = now + _HEADS_SECONDS

    def forget(self) -> None:
        """Forget all: what was decided on them may not hold any more."""
        self.known.clear()
        self._age += 1

    def keep(self, head: bytes, exchange: Exchange, length: int) -> None:
        """Remember a head whose request was admitted."""
        lasts = exchange.headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        # Who was let in by a certificate or an address is not known by the bytes of a head.
        named = b"authorization" in exchange.headers or exchange.route.action is None
        small = named and len(self.known) < _HEADS_KEPT and len(head) <= _HEAD_BYTES
        if small and lasts and _PLAIN.isdisjoint(exchange.headers):
            self.known[head] = Head(exchange, length)
