"""HTTP/2 on one connection, as far as gRPC needs it: frames to calls and back, within limits (RFC 9113).

A protocol of our own, for the reason that HTTP/1.1 has one: an answer is written in the very call that made it
(docs/decisions/017). What a peer may do for free and a server may not bear (resets, pings, settings, frames without
content) costs credit, which calls that are answered give back; without any the connection ends.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Any, Protocol

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.calls import Call, Turn
from modelyard.serving.grpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME,
    LARGEST,
    MAX_FRAME,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    WINDOW,
    Code,
    ConnectionFault,
    Kind,
    Setting,
    StreamFault,
    frame,
    goaway,
    reset,
    settings,
    unpad,
    window_update,
)
from modelyard.serving.grpc.heads import HeadReader
from modelyard.serving.grpc.status import head_of, trailers
from modelyard.serving.limits import Limits

__all__ = ["CALLS", "Answers", "Connection"]

# Calls of one connection at once; one more may be sent again.
CALLS = 128
# Bytes that may come on a stream, and on all of a connection, before the peer is told that it may send more.
_STREAM_WINDOW, _CONNECTION_WINDOW = 1 << 20, 8 << 20
# Bytes and frames of a call's headers, as they are sent and as they are read.
_HEADERS, _CONTINUATIONS = 16_384, 8
# Messages of the largest size that may wait on one connection until they are whole.
_UNFINISHED = 4
# What a peer may do for free: at first, a second, and for a call that was answered; and what a reset costs.
_CREDIT, _CREDIT_SECOND, _CREDIT_CALL, _COST_RESET = 1000, 100, 4, 8
# Streams that were answered before their caller had sent all: what still comes of them is passed over.
_EARLY = 1024
# Seconds that a call of many messages may be silent.
_SILENT = 600.0
# Seconds that a peer has to answer that it heard of the end.
_HEARD_SECONDS = 1.0
_PING = b"draining"
_HEADER = FRAME.size
_pack = FRAME.pack


class Answers(Protocol):
    """What answers calls; the same for every connection of a server."""

    limits: Limits
    connections: set[Any]

    @property
    def crowded(self) -> bool:
        """Whether there are more connections than there may be."""
        ...

    def admit(self, call: Call, now: float) -> None:
        """Say whether a call may be made, before its message is there.

        Raises:
            HttpError: It may not.
        """
        ...

    def begin(self, call: Call) -> None:
        """Answer a whole call, now or later, by `call.reply` or `call.refuse`."""
        ...

    def take_turn(self, turn: Turn) -> None:
        """Answer one message of a call with many."""
        ...

    def refused(self, error: HttpError, exchange: Any = None) -> None:
        """Count a refusal."""
        ...


class Connection(asyncio.Protocol):
    """One connection of a caller.

    Args:
        answers: Who answers.

    Attributes:
        transport: The transport; none once it is closed.
        calls: Calls under way, by the number of their stream.
    """

    __slots__ = (
        "_began",
        "_block",
        "_closed",
        "_credit",
        "_drained",
        "_early",
        "_idle",
        "_initial",
        "_last",
        "_preface",
        "_reader",
        "_resize",
        "_rest",
        "_rest_since",
        "_settled",
        "_taken",
        "_waiting",
        "_window",
        "answers",
        "calls",
        "transport",
    )

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.transport: Any = None
        self.calls: dict[int, Call] = {}
        self._reader = HeadReader(_HEADERS)
        self._preface = False
        self._settled = False
        self._closed = False
        # A frame that has not come whole, and since when.
        self._rest = b""
        self._rest_since = 0.0
        # A header block that goes on in the next frame: stream, flags, what came of it, frames.
        self._block: tuple[int, int, bytes, int] | None = None
        self._last = 0
        self._early: dict[int, None] = {}
        # What the peer takes: on the connection, and on a new stream.
        self._window = self._initial = WINDOW
        self._taken = 0
        self._waiting: dict[int, Call] = {}
        self._credit = _CREDIT
        self._idle = 0.0
        # What the next headers begin with, after the peer has made its table smaller.
        self._resize = b""
        # How far the end of the connection is: 0 nothing said, 1 said, 2 the peer has heard it.
        self._drained = 0

    # -- what the transport says

    def connection_made(self, transport: Any) -> None:
        """Say what we take."""
        self.transport = transport
        self._idle = self._rest_since = time.monotonic()
        self.answers.connections.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._end(Code.PROTOCOL_ERROR)
            return
        ours = settings(
            {
                Setting.MAX_CONCURRENT_STREAMS: CALLS,
                Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                Setting.MAX_HEADER_LIST_SIZE: _HEADERS,
            }
        )
        transport.write(ours + window_update(0, _CONNECTION_WINDOW - WINDOW))
        if self.answers.crowded:
            self.answers.refused(HttpError(503, "too-many-connections", "the server has no room; try again"))
            self._end(Code.ENHANCE_YOUR_CALM)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; what is still being answered has nobody to go to."""
        self.answers.connections.discard(self)
        self.transport = None
        self._closed = True
        self._waiting.clear()
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.forget()

    def pause_writing(self) -> None:
        """Read no more from a caller that does not take its answers."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on reading."""
        if self.transport is not None and not self._closed:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take frames; the connection ends where they break the rules."""
        if self._closed:
            return
        if self._rest:
            data = self._rest + data
        try:
            at = self._frames(data)
        except ConnectionFault as fault:
            self.answers.refused(HttpError(400, "not-http2", "this is not a connection in HTTP/2"))
            self._end(fault.code)
            return
        if at == len(data):
            self._rest = b""
        else:
            self._rest = data[at:]
            if at or not self._rest_since:
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
                    self._data(stream & MAX_WINDOW, flags, data, begin, at)
                elif kind == 1 and self._settled and self._block is None:
                    self._headers(stream & MAX_WINDOW, flags, data, begin, at, now)
                else:
                    self._other(kind, stream & MAX_WINDOW, flags, data[begin:at], now)
            except StreamFault as fault:
                self._reset(fault)
            if self._closed:
                return end
        return at

    # -- requests

    def _headers(self, stream: int, flags: int, data: bytes, begin: int, end: int, now: float) -> None:
        if flags & ~(END_STREAM | END_HEADERS):
            begin, end = unpad(data, begin, end, flags)
        if flags & END_HEADERS:
            self._open(stream, flags, data[begin:end], now)
        else:
            self._block = (stream, flags, data[begin:end], 0)

    def _continue(self, stream: int, flags: int, data: bytes, now: float) -> None:
        assert self._block is not None  # noqa: S101 - who calls has looked
        first, first_flags, block, frames = self._block
        if stream != first:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        block += data
        if len(block) > _HEADERS or frames >= _CONTINUATIONS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self._block = None
            self._open(stream, first_flags, block, now)
        else:
            self._block = (stream, first_flags, block, frames + 1)

    def _open(self, stream: int, flags: int, block: bytes, now: float) -> None:
        """Begin a call, or end one: headers after the messages are its end."""
        known = self._reader.read(block)
        if stream <= self._last or not stream & 1:
            self._trail(stream, flags)
            return
        self._last = stream
        if known.wrong:
            raise StreamFault(stream, Code.PROTOCOL_ERROR)
        if len(self.calls) >= CALLS or self._drained > 1:
            raise StreamFault(stream, Code.REFUSED_STREAM)
        call = self.calls[stream] = Call(self, stream, known, self._initial, now)
        try:
            self.answers.admit(call, now)
            if known.lasting:
                self._reader.keep(block, known)
            if call.route.streams:
                call.begin_turns()
            if known.timeout >= 0 and (call.lasts or known.timeout < self.answers.limits.total_seconds):
                call.timer = asyncio.get_running_loop().call_later(known.timeout, self._late, call)
            if flags & END_STREAM:
                call.end()
        except HttpError as error:
            call.ended = bool(flags & END_STREAM)
            call.refuse(error)

    def _trail(self, stream: int, flags: int) -> None:
        """Take headers on a stream that was opened before."""
        call = self.calls.get(stream)
        if call is None and stream in self._early:
            if flags & END_STREAM:
                del self._early[stream]
            return
        if call is None or not flags & END_STREAM:
            raise ConnectionFault(Code.PROTOCOL_ERROR if call or not stream & 1 else Code.STREAM_CLOSED)
        if call.ended:
            raise ConnectionFault(Code.STREAM_CLOSED)
        self._ended(call)

    def _data(self, stream: int, flags: int, data: bytes, begin: int, end: int) -> None:
        size = end - begin
        self._taken += size
        if self._taken > _CONNECTION_WINDOW >> 1:
            self._grant_connection()
        call = self.calls.get(stream)
        if call is None:
            self._stray(stream, flags)
            return
        if call.ended:
            raise StreamFault(stream, Code.STREAM_CLOSED)
        call.taken += size
        if call.taken > _STREAM_WINDOW:
            raise StreamFault(stream, Code.FLOW_CONTROL_ERROR)
        if flags & PADDED:
            begin, end = unpad(data, begin, end, flags & PADDED)
        if not size and not flags & END_STREAM:
            self._spend(1)
        try:
            call.take(data, begin, end)
            if flags & END_STREAM:
                call.end()
            elif call.taken > _STREAM_WINDOW >> 1:
                self.grant(call)
        except HttpError as error:
            call.ended = bool(flags & END_STREAM)
            call.refuse(error)

    def _ended(self, call: Call) -> None:
        try:
            call.end()
        except HttpError as error:
            call.refuse(error)

    def _stray(self, stream: int, flags: int) -> None:
        """Take bytes of a stream that is not open: of one that was answered early they may still be on their way."""
        if stream not in self._early:
            raise ConnectionFault(Code.PROTOCOL_ERROR if stream > self._last or not stream & 1 else Code.STREAM_CLOSED)
        self._spend(1)
        if flags & END_STREAM:
            del self._early[stream]

    def grant(self, call: Call) -> None:
        """Tell the peer that it may send more on a stream, if there is room for it."""
        if call.taken and not call.ended and not call.full and self.transport is not None:
            self.transport.write(window_update(call.stream, call.taken))
            call.taken = 0

    def _grant_connection(self) -> None:
        if self._taken > _CONNECTION_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
        most = self.answers.limits.body * _UNFINISHED
        if sum([call.buffered for call in self.calls.values()]) > most:
            largest = max(self.calls.values(), key=lambda call: call.buffered)
            largest.refuse(HttpError(429, "too-many-requests", "too many large messages at once; try again"))
        self.transport.write(window_update(0, self._taken))
        self._taken = 0

    # -- everything else

    def _other(self, kind: int, stream: int, flags: int, data: bytes, now: float) -> None:
        if self._block is not None:
            if kind != Kind.CONTINUATION:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            self._continue(stream, flags, data, now)
        elif not self._settled and (kind != Kind.SETTINGS or flags & ACK):
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
        elif kind == Kind.PRIORITY and len(data) != 5:
            raise StreamFault(stream, Code.FRAME_SIZE_ERROR) if stream else ConnectionFault(Code.PROTOCOL_ERROR)
        else:
            # A peer that says goodbye still waits for its answers; kinds that nobody knows are passed over.
            if (stream == 0 and kind == Kind.PRIORITY) or (stream and kind == Kind.GOAWAY):
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            self._spend(1)

    def _set(self, stream: int, flags: int, data: bytes) -> None:
        if stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        if len(data) % 6 or (flags & ACK and data):
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        if flags & ACK:
            return
        # The first of them is part of the preface.
        self._spend(1 + len(data) // 6 if self._settled else 0)
        self._settled = True
        for key, value in struct.iter_unpack(">HI", data):
            if key == Setting.INITIAL_WINDOW_SIZE:
                self._resized(value)
            elif (key == Setting.MAX_FRAME_SIZE and not MAX_FRAME <= value <= LARGEST) or (
                key == Setting.ENABLE_PUSH and value > 1
            ):
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            elif key == Setting.HEADER_TABLE_SIZE:
                # We keep nothing in the table, and a peer that made it smaller wants to hear that (RFC 7541, 4.2).
                self._resize = b"\x20"
        self.transport.write(frame(Kind.SETTINGS, ACK, 0))
        self._push_all()

    def _resized(self, value: int) -> None:
        if value > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
        more, self._initial = value - self._initial, value
        for call in self.calls.values():
            call.window += more
            if call.window > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR)

    def _ping(self, stream: int, flags: int, data: bytes) -> None:
        if stream or len(data) != 8:
            raise ConnectionFault(Code.PROTOCOL_ERROR if stream else Code.FRAME_SIZE_ERROR)
        self._spend(1)
        if not flags & ACK:
            self.transport.write(frame(Kind.PING, ACK, 0, data))
        elif self._drained == 1 and data == _PING:
            self._heard()

    def _more(self, stream: int, data: bytes) -> None:
        if len(data) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        more = int.from_bytes(data, "big") & MAX_WINDOW
        call = self.calls.get(stream)
        if stream and call is None:
            if stream > self._last or not stream & 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            self._spend(1)
            return
        if not more:
            raise StreamFault(stream, Code.PROTOCOL_ERROR) if stream else ConnectionFault(Code.PROTOCOL_ERROR)
        if call is None:
            self._window += more
            if self._window > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
            self._push_all() if self._waiting else self._spend(1)
            return
        call.window += more
        if call.window > MAX_WINDOW:
            raise StreamFault(stream, Code.FLOW_CONTROL_ERROR)
        if stream in self._waiting:
            self._push(call)
        else:
            self._spend(1)

    def _given_up(self, stream: int, data: bytes) -> None:
        """The caller does not wait for an answer any more."""
        if len(data) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        if stream > self._last or not stream & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR)
        self._early.pop(stream, None)
        call = self.calls.get(stream)
        self._spend(_COST_RESET if call is not None else 1)
        if call is not None:
            call.ended = True
            self._forget(call)

    def _spend(self, cost: int) -> None:
        self._credit -= cost
        if self._credit < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM)

    # -- answers

    def now(self) -> float:
        """Return the time, of the monotonic clock."""
        return time.monotonic()

    def answered(self, call: Call, body: bytes) -> None:
        """Write the one answer of a call."""
        if self.transport is None:
            return
        size = len(body) + 5
        tail = trailers(call.id)
        if size > self._window or size > call.window or size > MAX_FRAME or self._resize or self._waiting:
            call.tail = tail
            self.send(call, b"\0%s%s" % (len(body).to_bytes(4, "big"), body))
            return
        self._window -= size
        stream, head = call.stream, head_of(call.by)
        self.transport.write(
            b"".join(
                (
                    _pack(0, len(head), 1, END_HEADERS, stream),
                    head,
                    _pack(size >> 8, size & 255, 0, 0, stream),
                    b"\0",
                    len(body).to_bytes(4, "big"),
                    body,
                    _pack(len(tail) >> 8, len(tail) & 255, 1, END_HEADERS | END_STREAM, stream),
                    tail,
                )
            )
        )
        self._done(call)

    def send(self, call: Call, data: bytes) -> None:
        """Write a part of an answer, as much of it as the caller takes now."""
        if data:
            if not call.out:
                call.out = bytearray()
            call.out += data
        self._push(call)

    def _push_all(self) -> None:
        for call in list(self._waiting.values()):
            self._push(call)

    def _push(self, call: Call) -> None:
        """Write what the caller takes now of what waits for it."""
        if self.transport is None or call.over:
            return
        parts: list[bytes] = []
        stream, out = call.stream, call.out
        if not call.begun and (out or call.tail):
            call.begun = True
            head, self._resize = self._resize + head_of(call.by), b""
            if not out:
                # Without a message, the end of the call stands in its first headers.
                head += call.tail
            parts.append(frame(Kind.HEADERS, END_HEADERS | (0 if out else END_STREAM), stream, head))
        elif call.tail and not out:
            parts.append(self._end_of(call))
        at = 0
        while at < len(out) and (size := min(len(out) - at, self._window, call.window, MAX_FRAME)) > 0:
            parts += (_pack(size >> 8, size & 255, 0, 0, stream), bytes(memoryview(out)[at : at + size]))
            at += size
            self._window -= size
            call.window -= size
        if at:
            # What is not empty can be cut.
            del out[:at]  # type: ignore[union-attr]
            if call.tail and not out:
                parts.append(self._end_of(call))
        if parts:
            self.transport.write(b"".join(parts))
        if out:
            self._waiting[stream] = call
        else:
            self._waiting.pop(stream, None)
            if call.tail:
                self._done(call)
            elif at:
                call.go_on()
                self.grant(call)

    def _end_of(self, call: Call) -> bytes:
        resize, self._resize = self._resize, b""
        return frame(Kind.HEADERS, END_HEADERS | END_STREAM, call.stream, resize + call.tail)

    def _done(self, call: Call) -> None:
        """Let go of a call whose answer was written."""
        if not call.ended:
            # The caller need not send the rest; what is on its way is passed over.
            self.transport.write(reset(call.stream, Code.NO_ERROR))
            self._early[call.stream] = None
            if len(self._early) > _EARLY:
                del self._early[next(iter(self._early))]
        if self._credit < _CREDIT:
            self._credit += _CREDIT_CALL
        self._forget(call)

    def _forget(self, call: Call) -> None:
        call.forget()
        self.calls.pop(call.stream, None)
        self._waiting.pop(call.stream, None)
        if not self.calls:
            self._idle = time.monotonic()
            if self._drained > 1 and not self._closed:
                self._end(Code.NO_ERROR)

    def _reset(self, fault: StreamFault) -> None:
        """End a stream that broke a rule."""
        self._spend(_COST_RESET)
        self.answers.refused(HttpError(400, "not-http2", "this stream is not in HTTP/2"))
        self.transport.write(reset(fault.stream, fault.code))
        call = self.calls.get(fault.stream)
        if call is None or not call.ended:
            self._early[fault.stream] = None
        if call is not None:
            self._forget(call)

    def _late(self, call: Call) -> None:
        """End a call whose time is up."""
        call.timer = None
        if not call.over:
            call.out = b""
            call.refuse(HttpError(504, "deadline-exceeded", "the caller's time was up before the answer was there"))

    # -- the end

    def overdue(self, now: float, limits: Limits) -> bool:
        """Cut what takes too long or what nobody uses; say whether the connection ends for it."""
        if self.transport is None:
            return False
        self._credit = min(_CREDIT, self._credit + _CREDIT_SECOND)
        most = limits.total_seconds if self.calls else limits.header_seconds
        if (self._rest or self._block or not self._preface) and now - self._rest_since > most:
            self.transport.abort()
            return True
        for call in list(self.calls.values()):
            if call.over:
                continue
            if call.idle:
                if now - call.heard > _SILENT:
                    call.refuse(HttpError(503, "call-silent", "nothing has come for a long time; call again"))
            elif now - (call.since or call.heard) > limits.total_seconds:
                self._slow(call)
        if not self.calls and self._preface and now - self._idle > limits.keep_alive:
            self._end(Code.NO_ERROR)
            return True
        return False

    def drain(self) -> None:
        """End after what is under way; called again and again until it is over."""
        if self.transport is None or self._closed:
            return
        if not self._drained:
            self._drained = 1
            self._idle = time.monotonic()
            # What the peer has sent before it hears of this is still taken (RFC 9113, section 6.8).
            self.transport.write(goaway(MAX_WINDOW, Code.NO_ERROR) + frame(Kind.PING, 0, 0, _PING))
        elif self._drained == 1 and time.monotonic() - self._idle > _HEARD_SECONDS:
            self._heard()
        if self._drained > 1:
            for call in list(self.calls.values()):
                if call.idle:
                    call.refuse(HttpError(503, "server-ends", "the server ends; call again"))
            if not self.calls:
                self._end(Code.NO_ERROR)

    def _heard(self) -> None:
        """Take no new call from now on."""
        self._drained = 2
        self.transport.write(goaway(self._last, Code.NO_ERROR))

    def _slow(self, call: Call) -> None:
        """End a call that does not come to its end."""
        if not call.begun:
            call.refuse(HttpError(504, "deadline-exceeded", "the call took too long"))
            return
        self.transport.write(reset(call.stream, Code.CANCEL))
        self._forget(call)

    def _end(self, code: Code) -> None:
        """Say why the connection ends, and end it."""
        self._closed = True
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.forget()
        self._waiting.clear()
        if self.transport is not None:
            self.transport.write(goaway(self._last, code))
            self.transport.close()
