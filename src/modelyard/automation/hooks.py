"""Receive webhooks: a plain ASGI application that answers `POST /hooks/NAME` and tells a stranger nothing.

Whoever is told that a delivery is taken can rely on it: the fire is on the disk before the answer goes out. The order
is address, method, rate, size, signature, and only then the body.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ModelyardError
from modelyard.automation.bodies import Gone, Headers, Receive, Unread, discard, has_body, read_body
from modelyard.automation.triggers.common import log
from modelyard.automation.triggers.signature import Unsigned
from modelyard.automation.triggers.webhook import Receipt, WebhookTrigger

__all__ = ["PREFIX", "Hooks", "app"]

PREFIX = "/hooks/"
_MOST_BYTES = 1_000_000
_BODY_SECONDS = 10.0
_AT_ONCE = 32
_SOURCES = 4096
_WORDS = {
    400: "not taken",
    401: "not taken",
    404: "nothing here",
    405: "not so",
    408: "too slow",
    413: "too large",
    415: "not taken",
    429: "too often",
    503: "not now",
}

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class _Refused(Exception):
    """A request that is answered with a status and no reason; `read`: after its body was read."""

    def __init__(self, status: int, *headers: tuple[bytes, bytes], read: bool = False) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.read = read


class _Sources:
    """A bucket of requests a source, refilled all the time; the sources asked for longest ago are forgotten."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._most = per_minute
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str) -> float:
        """Take one; return 0, or the seconds to wait."""
        now = self._clock()
        left, then = self._left.pop(source, (float(self._most), now))
        left = min(self._most, left + max(0.0, now - then) * self._most / 60)
        self._left[source] = (left - 1 if left >= 1 else left, now)
        while len(self._left) > _SOURCES:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) * 60 / self._most


class Hooks:
    """The ASGI callable; see `app`."""

    def __init__(self, receivers: Iterable[WebhookTrigger], *, per_minute: int, clock: Clock) -> None:
        self._receivers = {f"{PREFIX}{receiver.name}": receiver for receiver in receivers}
        self._sources = _Sources(per_minute, clock)
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(scope["type"])
        headers: Headers = scope["headers"]
        try:
            receipt = await self._take(scope, headers, receive)
        except _Refused as error:
            await _refuse(send, receive, headers, error)
        except Gone:
            return
        else:
            await _answer(send, 200 if receipt.status == "known" else 202, receipt)

    async def _take(self, scope: Scope, headers: Headers, receive: Receive) -> Receipt:
        receiver = self._receivers.get(scope["path"])
        if receiver is None:
            raise _Refused(404)
        if scope["method"] != "POST":
            raise _Refused(405, (b"allow", b"POST"))
        if wait := self._sources.take(_source(scope)):
            raise _Refused(429, (b"retry-after", b"%d" % (int(wait) + 1)))
        if self._at_once >= _AT_ONCE:
            raise _Refused(503, (b"retry-after", b"1"))
        self._at_once += 1
        try:
            body = await _body(headers, receive)
            given = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
            # The disk is waited for: not in the loop that answers everybody.
            return await asyncio.to_thread(_taken, receiver, given, body)
        finally:
            self._at_once -= 1


def app(receivers: Iterable[WebhookTrigger], *, per_minute: int = 600, clock: Clock = time.monotonic) -> Hooks:
    """Return the ASGI application that takes the deliveries of these triggers at `POST /hooks/NAME`.

    It answers 202 with the fire's id, or 200 where the delivery came before; 401 for a bad or missing signature and an
    old time, 400 for a body that is not JSON, 404, 405, 413 (more than 1 MB), 429 with `Retry-After`, and 503 where
    nothing can be written down now. None of them says why: `WebhookTrigger.refused` and the log do.

    Args:
        receivers: The triggers, started.
        per_minute: Requests that one source (an address; the network of an IPv6 address) may make in a minute, wrong
            ones included.
        clock: Source of the time for the rate; need not be that of the wall.
    """
    return Hooks(receivers, per_minute=per_minute, clock=clock)


def _taken(receiver: WebhookTrigger, headers: dict[str, str], body: bytes) -> Receipt:
    try:
        return receiver.take(headers, body)
    except Unsigned as error:
        log.info("hook %s: not taken: %s", receiver.name, error)
        raise _Refused(401, read=True) from error
    except ValueError as error:
        log.info("hook %s: not taken: %s", receiver.name, error)
        raise _Refused(400, read=True) from error
    except ModelyardError as error:
        log.warning("hook %s: cannot take anything now: %s", receiver.name, error)
        raise _Refused(503, (b"retry-after", b"30"), read=True) from error


async def _body(headers: Headers, receive: Receive) -> bytes:
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await read_body(headers, receive, _MOST_BYTES)
    except Unread as error:
        raise _Refused(error.status) from error
    except TimeoutError as error:
        raise _Refused(408) from error


def _source(scope: Scope) -> str:
    client = scope.get("client")
    host = str(client[0]) if client else ""
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.version == 6:
            # Whoever has one such address has the network around it.
            return str(ipaddress.ip_network((address, 64), strict=False))
    return host


async def _answer(send: Send, status: int, receipt: Receipt) -> None:
    body = {"status": receipt.status, **({"fire": receipt.fire} if receipt.fire else {})}
    data = msgspec.json.encode({**body, "why": receipt.why} if receipt.why else body)
    await _start(send, status, data)
    await send({"type": "http.response.body", "body": data})


async def _refuse(send: Send, receive: Receive, headers: Headers, refused: _Refused) -> None:
    data = msgspec.json.encode({"error": _WORDS[refused.status]})
    unread = not refused.read and has_body(headers)
    extra = (*refused.headers, (b"connection", b"close")) if unread else refused.headers
    await _start(send, refused.status, data, extra)
    await send({"type": "http.response.body", "body": data, "more_body": unread})
    if unread:
        # Who closes while the sender still sends takes the answer from it.
        await discard(receive, most=2 * _MOST_BYTES, seconds=2.0)
        await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, status: int, data: bytes, extra: Headers = ()) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
