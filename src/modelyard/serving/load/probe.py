"""Ask a server once, on a connection of its own: what it makes of a load test, or what it answers at all."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import httptools

from modelyard.store.requests import LOAD_TEST

__all__ = ["Answered", "ask", "probe"]

_SECONDS, _PART = 10.0, 65_536


class Answered(NamedTuple):
    """What came back.

    Attributes:
        status: Status; 0 where none came in time.
        id: Id of the request, as the server tells it.
        body: The body, where it was waited for.
    """

    status: int
    id: bytes = b""
    body: bytes = b""


class _Answer:
    """One answer, as the parser finds it."""

    def __init__(self) -> None:
        self.id = self.body = b""
        self.begun = self.whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the id."""
        if name.lower() == b"x-request-id":
            self.id = value

    def on_headers_complete(self) -> None:
        """Note that all of them have come."""
        self.begun = True

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self.body += part

    def on_message_complete(self) -> None:
        """Note that all of it has come."""
        self.whole = True


async def ask(
    port: int, request: bytes, *, host: str = "127.0.0.1", seconds: float = _SECONDS, head: bool = False
) -> Answered:
    """Send one request and return what came back.

    Args:
        port: Port.
        request: The whole request, with its head.
        host: Name or address.
        seconds: Time in which the answer has to come.
        head: Its head is enough.
    """
    answer = _Answer()
    parser: Any = httptools.HttpResponseParser(answer)

    def done() -> bool:
        return answer.begun if head else answer.whole

    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(request)
                while not done() and (part := await reader.read(_PART)):
                    parser.feed_data(part)
            finally:
                writer.close()
    except (OSError, TimeoutError, httptools.HttpParserError):
        return Answered(0)
    return Answered(parser.get_status_code(), answer.id, answer.body) if done() else Answered(0)


async def probe(host: str, port: int, request: bytes) -> tuple[int, bool]:
    """Send one request of a load test.

    Args:
        host: Name or address.
        port: Port.
        request: The whole request, with its head.

    Returns:
        The status, 0 where none came; and whether the server keeps the request as one of a load test.
    """
    found = await ask(port, request, host=host, head=True)
    return found.status, found.id.startswith(LOAD_TEST.encode())
