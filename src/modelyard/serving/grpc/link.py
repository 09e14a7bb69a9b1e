"""Frames of HTTP/2 on one connection: in whole, in the order that the rules allow, and within limits (RFC 9113).

What a peer may do for free and a server may not bear (resets, pings, settings, frames without content) costs credit,
which calls that are answered give back; without any the connection ends.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Any

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME,
    LARGEST,
    MAX_FRAME,
    MAX_WINDOW,
    PREFACE,
    Code,
    ConnectionFault,
    Kind,
    Setting,
    StreamFault,
    frame,
    goaway,
    unpad,
)

__all__ = ["HEADERS", "PING", "Link"]

# Bytes and frames of a call's headers, as they are sent and as they are read.
HEADERS, _CONTINUATIONS = 16_384, 8
# What a peer may do for free: at first, a second, and for a call that was answered.
_CREDIT, _CREDIT_SECOND, _CREDIT_CALL = 1000, 100, 4
# What we send when a connection ends: who answers it has read all before it.
PING = b"draining"
_HEADER = FRAME.size
_PRIORITY_BYTES = 5
# Bytes of HPACK's table, until a peer makes it smaller.
_TABLE = 4096


class Link(asyncio.Protocol):
    """Reads frames, and answers those that are about the connection itself.

    Attributes:
        transport: The transport; none once it is closed.
        last: Highest stream that the peer has opened.
        settled: The peer has sent its settings.
        closed: The connection ends; nothing more is read.
        resize: What the next headers begin with, after the peer has made its table smaller.
    """

    __slots__ = (
        "_block",
        "_credit",
        "_preface",
        "_rest",
        "_rest_since",
        "closed",
        "last",
        "resize",
        "settled",
        "transport",
    )

    def __init__(self) -> None:
        self.transport: Any = None
        self.last = 0
        self.settled = self.closed = False
        self.resize = b""
        self._preface = False
        # A frame that has not come whole, and since when.
        self._rest = b""
        self._rest_since = time.monotonic()
        # A header block that goes on in the next frame: stream, flags, what came of it, frames.
        self._block: tuple[int, int, bytes, int] | None = None
        self._credit = _CREDIT

    # -- what becomes of frames

    def opened(self, stream: int, flags: int, block: bytes, now: float) -> None:
        """Take the headers of a stream."""
        raise NotImplementedError

    def came(self, stream: int, flags: int, data: bytes, begin: int, end: int) -> None:
        """Take a frame of what a stream carries, from `begin` to `end` of the data."""
        raise NotImplementedError

    def more(self, stream: int, size: int) -> None:
        """Take note that so many bytes more may be sent."""
        raise NotImplementedError

    def resized(self, window: int) -> None:
        """Take note of how many bytes may be sent on a stream."""
        raise NotImplementedError

    def given_up(self, stream: int) -> None:
        """Take note that the peer has ended a stream."""
        raise NotImplementedError

    def reset(self, fault: StreamFault) -> None:
        """End a stream that broke a rule."""
        raise NotImplementedError

    def heard(self) -> None:
        """Take note that the peer has read what was sent before the ping."""
        raise NotImplementedError

    def refused(self, error: HttpError) -> None:
        """Count what was refused and is no call."""
        raise NotImplementedError

    def end(self, code: Code) -> None:
        """Say why the connection ends, and end it."""
        self.closed = True
        if self.transport is not None:
            self.transport.write(goaway(self.last, code))
            self.transport.close()

    # -- credit

    def spend(self, cost: int) -> None:
        """Take credit for what brings nothing.

        Raises:
            ConnectionFault: There is none left.
        """
        self._credit -= cost
        if self._credit < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM)

    def earn(self) -> None:
        """Give credit for a call that was answered."""
        if self._credit < _CREDIT:
            self._credit += _CREDIT_CALL

    def late(self, now: float, seconds: float) -> bool:
        """Give the credit of a second, and say whether a frame or headers should have been whole for so many."""
        self._credit = min(_CREDIT, self._credit + _CREDIT_SECOND)
        unfinished = self._rest or self._block is not None or not self.settled
        return bool(unfinished) and now - self._rest_since > seconds

    # -- what the transport says

    def pause_writing(self) -> None:
        """Read no more from a caller that does not take its answers."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        if self.transport is not None and not self.closed:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take frames; the connection ends where they break the rules."""
        if self.closed:
            return
        fresh = not self._rest
        if not fresh:
            data = self._rest + data
        try:
            at = self._frames(data)
        except ConnectionFault as fault:
            self.refused(HttpError(400, "not-http2", "this is not a connection in HTTP/2"))
            self.end(fault.code)
            return
        if at == len(data):
            self._rest = b""
        else:
            self._rest = data[at:]
            if at or fresh:
                self._rest_since = time.monotonic()

    def _frames(self, data: bytes) -> int:
        """Take whole frames, and return where they end."""
        at, end = 0, len(data)
        if not self._preface:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            if end < len(PREFACE):
                return 0
            self._preface = True
            at = len(PREFACE)
        unpack, now = FRAME.unpack_from, time.monotonic()
        while end - at >= _HEADER:
            high, low, kind, flags, stream = unpack(data, at)
            begin = at + _HEADER
            size = high << 8 | low
            if size > MAX_FRAME:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR)
            at_next = begin + size
            if at_next > end:
                break
            at = at_next
            try:
                if not kind and self._block is None:
                    self.came(stream & MAX_WINDOW, flags, data, begin, at)
                elif kind == 1 and self.settled and self._block is None:
                    self._headers(stream & MAX_WINDOW, flags, data, begin, at, now)
                else:
                    self._other(kind, stream & MAX_WINDOW, flags, data[begin:at], now)
            except StreamFault as fault:
                self.reset(fault)
            if self.closed:
                return end
        return at

    # -- frames

    def _headers(self, stream: int, flags: int, data: bytes, begin: int, end: int, now: float) -> None:
        if flags & ~(END_STREAM | END_HEADERS):
            begin, end = unpad(data, begin, end, flags)
        if flags & END_HEADERS:
            self.opened(stream, flags, data[begin:end], now)
        else:
            self._block = (stream, flags, data[begin:end], 0)
            self._rest_since = now

    def _continue(self, stream: int, flags: int, data: bytes, now: float) -> None:
        assert self._block is not None  # noqa: S101 - who calls has looked
        first, first_flags, block, frames = self._block
        if stream != first:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        block += data
        if len(block) > HEADERS or frames >= _CONTINUATIONS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self._block = None
            self.opened(stream, first_flags, block, now)
        else:
            self._block = (stream, first_flags, block, frames + 1)

    def _other(self, kind: int, stream: int, flags: int, data: bytes, now: float) -> None:
        if self._block is not None:
            if kind != Kind.CONTINUATION:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            self._continue(stream, flags, data, now)
        elif not self.settled and (kind != Kind.SETTINGS or flags & ACK):
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        elif kind == Kind.WINDOW_UPDATE:
            self._more(stream, data)
        elif kind == Kind.RST_STREAM:
            self._given_up(stream, data)
        elif kind == Kind.SETTINGS:
            self._set(stream, flags, data)
        elif kind == Kind.PING:
            self._ping(stream, flags, data)
        elif kind in (Kind.PUSH_PROMISE, Kind.CONTINUATION):
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        elif kind == Kind.PRIORITY and len(data) != _PRIORITY_BYTES:
            raise StreamFault(stream, Code.FRAME_SIZE_ERROR) if stream else ConnectionFault(Code.PROTOCOL_ERROR)
        else:
            # A peer that says goodbye still waits for its answers; kinds that nobody knows are passed over.
            if (stream == 0 and kind == Kind.PRIORITY) or (stream and kind == Kind.GOAWAY):
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            self.spend(1)

    def _set(self, stream: int, flags: int, data: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        if len(data) % 6 or (flags & ACK and data):
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        if flags & ACK:
            return
        # The first of them is part of the preface.
        self.spend(1 + len(data) // 6 if self.settled else 0)
        self.settled = True
        for key, value in struct.iter_unpack(">HI", data):
            if key == Setting.INITIAL_WINDOW_SIZE:
                self.resized(value)
            elif key == Setting.MAX_FRAME_SIZE:
                if not MAX_FRAME <= value <= LARGEST:
                    raise ConnectionFault(Code.PROTOCOL_ERROR)
            elif key == Setting.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFault(Code.PROTOCOL_ERROR)
            elif key == Setting.HEADER_TABLE_SIZE and value < _TABLE:
                # We keep nothing in the table, and a peer that made it smaller wants to hear that (RFC 7541, 4.2).
                self.resize = b"\x20"
        self.transport.write(frame(Kind.SETTINGS, ACK, 0))

    def _ping(self, stream: int, flags: int, data: bytes) -> None:
        if stream or len(data) != 8:
            raise ConnectionFault(Code.PROTOCOL_ERROR if stream else Code.FRAME_SIZE_ERROR)
        self.spend(1)
        if not flags & ACK:
            self.transport.write(frame(Kind.PING, ACK, 0, data))
        elif data == PING:
            self.heard()

    def _more(self, stream: int, data: bytes) -> None:
        if len(data) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        self.more(stream, int.from_bytes(data, "big") & MAX_WINDOW)

    def _given_up(self, stream: int, data: bytes) -> None:
        if len(data) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        if stream > self.last or not stream & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        self.given_up(stream)
