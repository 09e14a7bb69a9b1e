"""One request and its answer, whatever the model and the protocol of its body."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard.serving.errors import HttpError, body_of
from modelyard.serving.http.encodings import LARGE, SMALL, accepted, squeeze
from modelyard.serving.http.heads import Head
from modelyard.serving.told import say, speaking

if TYPE_CHECKING:
    from modelyard.serving.http.order import Ordered

__all__ = ["JSON", "STATUS_LINES", "Exchange", "all_usual", "fail", "has_body", "head_bytes", "last_words", "send"]

_PHRASES = {
    200: b"OK",
    202: b"Accepted",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    409: b"Conflict",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
# How an answer of each status begins.
STATUS_LINES = {status: b"HTTP/1.1 %d %s\r\ncontent-type: " % (status, phrase) for status, phrase in _PHRASES.items()}
JSON = b"application/json"


class Exchange:
    """One request and its answer.

    Args:
        connection: Where the answer goes; without one a request can only be told of.
        head: The line and headers of the request, and what was decided on them.
        body: The whole body, once `begin` is called.
        began: When its headers were there, of the monotonic clock.
        name: Id of the request.

    Attributes:
        key: Digest of the key by which one of two versions was drawn, empty where that is its id; none if none was.
        drawn: Version that answers it in the place of the current one, in the words of metrics; empty: none does.
    """

    __slots__ = ("__weakref__", "_connection", "_data", "_keep_alive", "began", "body", "drawn", "head", "id", "key")

    def __init__(
        self, connection: Ordered | None, head: Head, body: bytes = b"", began: float = 0.0, name: str = ""
    ) -> None:
        self._connection: Ordered = connection  # type: ignore[assignment]
        self._data: bytes | None = None
        self._keep_alive = True
        self.head = head
        self.body = body
        self.began = began
        self.id = name
        self.drawn = ""
        self.key: str | None = None

    @property
    def method(self) -> bytes:
        """In capital letters."""
        return self.head.method

    @property
    def target(self) -> bytes:
        """Path and query as they were sent."""
        return self.head.target

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Name in small letters -> value."""
        return self.head.headers

    @property
    def caller(self) -> str:
        """Name of who asks, once that is known."""
        return self.head.caller

    @property
    def role(self) -> str:
        """The caller's role."""
        return self.head.role

    @property
    def route(self) -> Any:
        """What `admit` chose."""
        return self.head.route

    @property
    def model(self) -> str:
        """Name of the model that is asked for; empty where the request names none."""
        return self.head.model

    @property
    def version(self) -> str:
        """Version that is asked for."""
        return self.head.version

    @property
    def keeps(self) -> bool:
        """Whether it was admitted and the connection stays open after it."""
        return self._keep_alive and self.route is not None and type(self.route) is not HttpError

    @property
    def gone(self) -> bool:
        """Whether the caller has hung up."""
        return self._connection.transport is None

    @property
    def settled(self) -> bool:
        """Whether what came of it was said, and counted as that."""
        return self._data is not None

    def drop(self, error: HttpError) -> None:
        """Count an error that nobody is there to hear."""
        self._connection.answers.refused(error, self)

    def told(self, name: str) -> Any:
        """Return what the transport knows of the caller: `peername`, `peercert`."""
        transport = self._connection.transport
        return transport.get_extra_info(name) if transport is not None else None

    def header(self, name: bytes) -> bytes:
        """Return a header's value; empty if it was not given."""
        return self.headers.get(name, b"")

    def reply(
        self, status: int, body: bytes, extra: Sequence[tuple[bytes, bytes]] = (), content_type: bytes = JSON
    ) -> None:
        """Write the answer, after those of the requests before it on the connection."""
        connection = self._connection
        if self.head.usual and self._keep_alive and not extra and not connection.answers.draining:
            self._data = b"%s%s\r\ncontent-length: %d\r\nx-request-id: %s\r\n\r\n%s" % (
                STATUS_LINES[status],
                content_type,
                len(body),
                self.id.encode(),
                body,
            )
            connection.answered(self)
            return
        if len(body) > SMALL and (name := self._takes(extra)):
            extra = (*extra, (b"content-encoding", name), (b"vary", b"accept-encoding"))
            if len(body) > LARGE:
                self._squeeze(name, status, body, extra, content_type)
                return
            body = squeeze(body, name)
        more = b"".join([b"\r\n%s: %s" % pair for pair in extra]) if extra else b""
        cors = self.head.at.cors if self.head.at is not None else self._connection.answers.cors
        if cors and self.headers.get(b"origin") in cors:
            more += b"\r\naccess-control-allow-origin: %s\r\nvary: origin" % self.headers[b"origin"]
            more += b"\r\naccess-control-expose-headers: x-request-id, x-model-version, x-warnings, retry-after"
        if self._connection.answers.draining:
            self._connection.ending(self)
        if not self._keep_alive:
            more += b"\r\nconnection: close"
        # A caller asks for the head alone where it only wants to know how long the answer would be.
        shown = b"" if self.method == b"HEAD" else body
        self._data = b"%s%s\r\ncontent-length: %d\r\nx-request-id: %s%s\r\n\r\n%s" % (
            STATUS_LINES[status],
            content_type,
            len(body),
            self.id.encode("latin-1"),
            more,
            shown,
        )
        self._connection.answered(self)

    def _takes(self, extra: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Return the encoding in which the answer should go and does not yet; empty if there is none."""
        given = self.headers.get(b"accept-encoding", b"")
        return accepted(given) if given and not any(name == b"content-encoding" for name, _ in extra) else b""

    def _squeeze(
        self, name: bytes, status: int, body: bytes, extra: Sequence[tuple[bytes, bytes]], content_type: bytes
    ) -> None:
        """Compress a large answer in a thread, then write it; those after it wait for it."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, squeeze, body, name)
        work.add_done_callback(lambda done: self.reply(status, done.result(), extra, content_type))

    def refuse(self, error: HttpError) -> None:
        """Write an error as the answer."""
        self._connection.answers.refused(error, self)
        self.reply(error.status, body_of(error, self.id, v2=self.head.v2), error.headers)


def send(exchanges: Sequence[Exchange], answers: Sequence[bytes]) -> None:
    """Write answers that are whole, to requests that are `all_usual`."""
    for exchange, data in zip(exchanges, answers, strict=True):
        exchange._data = data
        exchange._connection.answered(exchange)


def all_usual(exchanges: Sequence[Exchange]) -> bool:
    """Say that answers to requests need the usual headers only."""
    return all(one.head.usual and one._keep_alive and not one._connection.answers.draining for one in exchanges)


def head_bytes(exchange: Exchange) -> int:
    """Return the bytes of a request's line and headers, with the empty line; without padding."""
    line = len(exchange.method) + len(exchange.target) + len(b"  HTTP/1.1\r\n\r\n")
    return line + sum(len(name) + len(value) + len(b": \r\n") for name, value in exchange.headers.items())


def has_body(exchange: Exchange) -> bool:
    """Say whether a body follows the headers."""
    headers = exchange.headers
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip() != b"0"


def last_words(connection: Ordered, error: HttpError) -> Exchange:
    """Return the answer to what did not become a request; the connection ends with it."""
    exchange, body = Exchange(connection, Head()), body_of(error, "", v2=False)
    top = b"%s%s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    exchange._keep_alive, exchange._data = False, top % (STATUS_LINES[error.status], JSON, len(body)) + body
    return exchange


def fail(exchange: Exchange, error: BaseException) -> None:
    """Answer with an error; of one that nobody foresaw the caller gets an id and the operator the trace."""
    if not isinstance(error, HttpError):
        trace = "".join(traceback.format_exception(error))
        at = exchange.head.at
        with speaking(at.voice if at is not None else None):
            say(f"{exchange.id} not answered:\n{trace}", level="error", request=exchange.id)
        error = HttpError(500, "internal", "the server could not answer this; its operator finds more under the id")
    # Whoever was told something, and counted by that, is not told another thing.
    if not exchange.settled:
        exchange.refuse(error)
