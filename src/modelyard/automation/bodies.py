"""Read the body of a request to a plain ASGI application, within bounds of bytes and time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

__all__ = ["Gone", "Headers", "Receive", "Unread", "discard", "has_body", "read_body"]

Headers = Sequence[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
# Digits of a length that could be true.
_DIGITS = 12


class Gone(Exception):
    """The caller hung up before the request was whole."""


class Unread(Exception):
    """A body that is not read.

    Args:
        status: HTTP status that says why: 400, 413 or 415.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def has_body(headers: Headers) -> bool:
    """Say whether a body follows the headers."""
    return any(k == b"transfer-encoding" or (k == b"content-length" and v.strip() != b"0") for k, v in headers)


async def read_body(headers: Headers, receive: Receive, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        Unread: It is larger than `most` bytes (413, before or while it comes), encoded (415), or its length is no
            number (400).
        Gone: The caller hung up.
    """
    for name, value in headers:
        if name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise Unread(415)
        if name == b"content-length":
            if not value.isdigit():
                raise Unread(400)
            if len(value) > _DIGITS or int(value) > most:
                raise Unread(413)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Unread(413)
        if not message.get("more_body", False):
            return b"".join(parts)


async def discard(receive: Receive, *, most: int, seconds: float) -> None:
    """Read and forget the rest of a body, within bounds.

    Who closes while the caller still sends takes from it the answer that says why.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while most > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                most -= len(message.get("body", b""))
