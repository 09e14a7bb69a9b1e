"""The HTTP connection with guards: a bound on headers, a clock on every request, errors in our own words."""

from __future__ import annotations

import time
from typing import Any

from modelyard.serving.errors import HttpError, body_of
from modelyard.serving.limits import Limits

__all__ = ["guarded", "sweep"]

_PHRASES = {400: b"Bad Request", 431: b"Request Header Fields Too Large"}


def guarded(limits: Limits) -> type[Any]:
    """Return uvicorn's connection on the httptools parser, with guards.

    The parser itself puts no bound on headers, and uvicorn times only idle connections.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Guarded(HttpToolsProtocol):
        # When the request under way began; 0 while there is none.
        began = 0.0
        headers_whole = False
        header_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.began = time.monotonic()

        def data_received(self, data: bytes) -> None:
            if not self.began:
                self.began = time.monotonic()
            super().data_received(data)
            if not self.headers_whole:
                self.header_bytes += len(data)
                if self.header_bytes > limits.header and not self.transport.is_closing():
                    message = f"the headers are larger than {limits.header:,} bytes"
                    self._refuse(HttpError(431, "headers-too-large", message))

        def on_headers_complete(self) -> None:
            self.headers_whole = True
            super().on_headers_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.began = time.monotonic() if self.pipeline else 0.0
            self.headers_whole = False
            self.header_bytes = 0

        def send_400_response(self, msg: str) -> None:
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

    return Guarded


def sweep(connections: Any, limits: Limits) -> int:
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
