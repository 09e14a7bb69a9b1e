"""Ask a server once, to see what it makes of a load test before it is loaded."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools

from modelyard.store.requests import LOAD_TEST

__all__ = ["probe"]

_SECONDS, _PART = 10.0, 65_536


class _Answer:
    """The head of an answer, as the parser finds it."""

    def __init__(self) -> None:
        self.id = b""
        self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the id."""
        if name.lower() == b"x-request-id":
            self.id = value

    def on_headers_complete(self) -> None:
        """Note that all of them have come."""
        self.whole = True


async def probe(host: str, port: int, request: bytes) -> tuple[int, bool]:
    """Send one request of a load test.

    Args:
        host: Name or address.
        port: Port.
        request: The whole request, with its head.

    Returns:
        The status, 0 where none came; and whether the server keeps the request as one of a load test.
    """
    answer = _Answer()
    parser: Any = httptools.HttpResponseParser(answer)
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                while not answer.whole and (part := await reader.read(_PART)):
                    parser.feed_data(part)
            finally:
                writer.close()
    except (OSError, TimeoutError, httptools.HttpParserError):
        return 0, False
    return (parser.get_status_code() if answer.whole else 0), answer.id.startswith(LOAD_TEST.encode())
