"""How much one caller may take: bytes, seconds, places in the queue."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard._kit.clock import Clock
from modelyard.serving.errors import HttpError, bad
from modelyard.serving.guards.policy import Policy

__all__ = ["Gone", "Headers", "Limits", "Rate", "discard", "has_body", "header", "read_body"]

Headers = Sequence[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one server.

    Attributes:
        body: Bytes of a request's body.
        rows: Rows of a request.
        header: Bytes of a request's line and headers.
        header_seconds: Time in which they must have arrived.
        total_seconds: Time from the first byte of a request to the last of its answer.
        keep_alive: Seconds that an idle connection is kept.
        connections: Connections at once; one more is answered 503.
        in_flight: Requests at once; one more is answered 429.
        backlog: Rows that wait to be logged; when there are more, requests wait.
        backlog_seconds: How long they wait before they are answered 503.
        drain_seconds: Time to end what is under way after SIGTERM.
        per_minute: Predictions that one token may ask for in a minute; 0 means any number.
        policy: What is refused, held back and shown of what stays within them.
    """

    body: int = 10_000_000
    rows: int = 100_000
    header: int = 64 * 1024
    header_seconds: float = 10.0
    total_seconds: float = 60.0
    keep_alive: int = 30
    connections: int = 2048
    in_flight: int = 512
    backlog: int = 50_000
    backlog_seconds: float = 2.0
    drain_seconds: float = 20.0
    per_minute: int = 0
    policy: Policy = field(default_factory=Policy)


class Rate:
    """A bucket of requests a caller, refilled all the time.

    Args:
        per_minute: Requests in a minute; 0 means any number.
        clock: Source of the time; need not be that of the wall.
    """

    def __init__(self, per_minute: int, *, clock: Clock = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, caller: str) -> float:
        """Take one request; return 0, or the seconds to wait when the bucket is empty."""
        if not self._most:
            return 0.0
        now = self._clock()
        left, then = self._left.get(caller, (float(self._most), now))
        left = min(self._most, left + (now - then) * self._most / 60)
        if left < 1:
            self._left[caller] = (left, now)
            return (1 - left) * 60 / self._most
        self._left[caller] = (left - 1, now)
        return 0.0


class Gone(Exception):
    """The caller hung up before the request was whole."""


def header(headers: Headers, name: bytes) -> bytes:
    """Return a header's value; empty if it was not given."""
    for key, value in headers:
        if key == name:
            return value
    return b""


def has_body(headers: Headers) -> bool:
    """Say whether a body follows the headers."""
    return any(k == b"transfer-encoding" or (k == b"content-length" and v.strip() != b"0") for k, v in headers)


async def read_body(headers: Headers, receive: Receive, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        HttpError: It is larger than `most` bytes (413, before or while it comes) or encoded (415).
        Gone: The caller hung up.
    """
    for name, value in headers:
        if name == b"content-encoding" and value.lower() not in (b"", b"identity"):
            raise HttpError(415, "body-encoding", "a body has to come as it is, without `Content-Encoding`")
        if name == b"content-length":
            if not value.isdigit():
                raise bad("body-length", "`Content-Length` is not a number")
            if int(value) > most:
                raise _too_large(most)
    message = await receive()
    if message["type"] != "http.request":
        raise Gone
    first: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(first) <= most:
        return first
    parts, size = [first], len(first)
    while True:
        if size > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
        if message["type"] != "http.request":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])


async def discard(receive: Receive, *, most: int = 64_000_000, seconds: float = 5.0) -> None:
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


def _too_large(most: int) -> HttpError:
    return HttpError(
        413, "body-too-large", f"the body is larger than {most:,} bytes; send the rows in several requests"
    )
