"""Heads of requests that were admitted a moment ago: the same bytes need not be parsed and decided on again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelyard.inference.kernels import compiled

__all__ = ["END", "MOUNT", "Head", "Heads"]

# What stands, with a name, before the path where a caller speaks to one endpoint alone.
MOUNT = b"/models/"
# What ends a head.
END = b"\r\n\r\n"

# Heads that are remembered: so long, so many, and of this size at most.
_HEADS_SECONDS, _HEADS_KEPT, _HEAD_BYTES = 0.5, 4096, 4096
# Bytes of a body up to which it may be answered together with others: a row has less, and of many none are.
_ALONE_BYTES = 16_384
# Headers that make one request unlike the next, or its body unlike a plain one.
_PLAIN = frozenset((b"expect", b"transfer-encoding", b"x-request-id", b"upgrade"))
# Headers that say nothing of what is asked for or how it shall be answered, with these values if one is named.
_USUAL = frozenset(
    (b"accept", b"authorization", b"connection", b"content-length", b"content-type", b"host", b"user-agent")
)
_VALUES = ((b"accept", b"*/*"), (b"content-type", b"application/json"))


class Head:
    """The line and headers of a request, and what was decided on them.

    Where it is known, all requests that begin with its bytes share it: once the first is admitted, what it says and
    what was decided on it stay as they are.

    Attributes:
        method: In capital letters.
        target: Path and query as they were sent.
        headers: Name in small letters -> value.
        caller: Name of who asks, once that is known.
        role: Its role.
        route: What `admit` chose.
        at: The endpoint that answers; none before it is known.
        seen: The models that a question about the server is about.
        model: Name of the model in its path; empty where there is none.
        version: Version in its path.
        length: Bytes of the body, where it is known.
        lane: Where such requests are gathered that can be answered together; none where they cannot.
        usual: It is known that the body alone says what is asked for: JSON comes, and JSON goes.
        refusal: What such a request is told while there is no room, ready but for its id; how long that is without
            the id; and the label by which it is counted.
    """

    __slots__ = (
        "at",
        "caller",
        "headers",
        "lane",
        "length",
        "method",
        "model",
        "refusal",
        "role",
        "route",
        "seen",
        "target",
        "usual",
        "version",
    )

    def __init__(self, method: bytes = b"", target: bytes = b"", headers: dict[bytes, bytes] | None = None) -> None:
        self.method = method
        self.target = target
        self.headers: dict[bytes, bytes] = {} if headers is None else headers
        self.caller = self.role = self.model = self.version = ""
        self.route: Any = None
        self.at: Any = None
        self.seen: tuple[Any, ...] = ()
        self.length = 0
        self.usual = False
        self.lane: Any = None
        self.refusal: tuple[bytes, int, tuple[str, str, str, int]] | None = None

    @property
    def v2(self) -> bool:
        """Whether it was asked in the words of the open protocol, also before anything is decided."""
        path = self.target
        if path.startswith(MOUNT):
            path = path[path.find(b"/", len(MOUNT)) :]
        return path.startswith(b"/v2")

    def decided(self, caller: str, role: str, route: Any, at: Any, seen: tuple[Any, ...]) -> None:
        """Note who asks whom for what."""
        self.caller, self.role, self.route = caller, role, route
        self.at, self.seen = at, seen


class Heads:
    """Heads of this half of a second, by their bytes: a caller's requests differ in their bodies.

    The same bytes mean the same to the parser, so they need not be parsed again; and a token that is revoked is refused
    within a second, since what was decided is forgotten twice a second.

    Attributes:
        known: What is known, by the bytes of a head without its end; after `until` it is not to be used.
        find: Takes what is known and the bytes of a request; returns its head and body, if the one is known and the
            other as long as that says.
        until: When it is forgotten, of the monotonic clock.
    """

    __slots__ = ("_age", "find", "known", "until")

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}
        kernels = compiled()
        self.find: Callable[[dict[bytes, Head], bytes], tuple[Head, bytes] | None]
        self.find = _find if kernels is None else kernels.find
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

    def keep(self, top: bytes, head: Head, length: int) -> None:
        """Remember the head of a request that was admitted.

        Args:
            top: Its bytes.
            head: What they say.
            length: Bytes of the body.
        """
        headers = head.headers
        lasts = headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        # Who was let in by a certificate or an address is not known by the bytes of a head; an empty token is none.
        named = bool(headers.get(b"authorization")) or head.route.action is None
        # Who speaks an older HTTP takes no answer but the last: of a connection it is known by its parser alone.
        named = named and not top.partition(b"\r\n")[0].endswith(b"/1.0")
        small = named and len(self.known) < _HEADS_KEPT and len(top) <= _HEAD_BYTES
        if small and lasts and _PLAIN.isdisjoint(headers):
            head.length = length
            plain = head.method != b"HEAD" and _USUAL.issuperset(headers)
            head.usual = plain and all(headers.get(name, value) == value for name, value in _VALUES)
            if not head.usual or length > _ALONE_BYTES:
                head.lane = None
            self.known[top] = head


def _find(known: dict[bytes, Head], data: bytes) -> tuple[Head, bytes] | None:
    top, end, body = data.partition(END)
    head = known.get(top) if end else None
    return (head, body) if head is not None and len(body) == head.length else None
