"""The HTTP connection with guards: a bound on headers, a clock on every request, errors in our own words.

The only module that builds on uvicorn's connection; it is imported when a server starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: TID253 - see above

from modelyard.serving.errors import HttpError, body_of
from modelyard.serving.limits import Limits

__all__ = ["Guarded", "guarded", "sweep"]

_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


def guarded(limits: Limits) -> type[Guarded]:
    """Return the connection with these limits."""
    return type("Limited", (Guarded,), {"most_header": limits.header})


class Guarded(HttpToolsProtocol):
    """uvicorn's connection on the httptools parser, with guards.

    The parser itself puts no bound on headers, and uvicorn times only idle connections.

    Attributes:
        began: When the request under way began; 0 while there is none.
        headers_whole: Whether its headers have arrived.
        most_header: Bytes of a request's line and headers.
    """

    most_header = Limits().header
    began = 0.0
    headers_whole = False
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Start the clock: who connects has to say something."""
        super().connection_made(transport)
        self.began = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Parse bytes; headers without end are refused."""
        if not self.began:
            self.began = time.monotonic()
        super().data_received(data)
        if not self.headers_whole:
            self._header_bytes += len(data)
            if self._header_bytes > self.most_header and not self.transport.is_closing():
                message = f"the headers are larger than {self.most_header:,} bytes"
                self._refuse(HttpError(431, "headers-too-large", message))

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio's own signature, narrowed by uvicorn
        """Go on answering a caller that has said all it has to say and still listens."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return None
        self.cycle.keep_alive = False
        return True

    def on_headers_complete(self) -> None:
        """Note that the headers are whole: from here on the clock of the whole request counts."""
        self.headers_whole = True
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Stop the clock, unless the next request waits already."""
        super().on_response_complete()
        self.began = time.monotonic() if self.pipeline else 0.0
        self.headers_whole = False
        self._header_bytes = 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP in our words instead of uvicorn's."""
        self._refuse(HttpError(400, "not-http", "this is not a request in HTTP/1.1"))

    def _refuse(self, error: HttpError) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # An answer is under way; a second one would end up in the middle of it.
            self.transport.abort()
            return
        body = body_of(error, "", v2=False)
        lines = [
            b"HTTP/1.1 %d %s" % (error.status, _PHRASES[error.status]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
            b"",
            body,
        ]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()


def sweep(connections: Iterable[Any], limits: Limits) -> int:
    """Cut the connections whose request takes too long, and return how many there were."""
    now, cut = time.monotonic(), 0
    for connection in list(connections):
        if not connection.began:
            continue
        most = limits.total_seconds if connection.headers_whole else limits.header_seconds
        if now - connection.began > most:
            connection.transport.abort()
            cut += 1
    return cut
