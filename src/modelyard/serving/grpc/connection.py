"""Calls on one connection: when they begin, what they may take, and how they and the connection end.

A protocol of our own, for the reason that HTTP/1.1 has one: an answer is written in the very call that made it
(docs/decisions/017).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.calls import Call, Turn
from modelyard.serving.grpc.flow import Flow
from modelyard.serving.grpc.frames import (
    END_STREAM,
    MAX_WINDOW,
    PADDED,
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
from modelyard.serving.grpc.link import HEADERS, PING
from modelyard.serving.http.tls import farewell
from modelyard.serving.limits import Limits, Unfinished

__all__ = ["CALLS", "Answers", "Connection"]

# Calls of one connection at once; one more may be sent again.
CALLS = 128
# Bytes that may come on a stream, and on all of a connection, before the peer is told that it may send more.
_STREAM_WINDOW, _CONNECTION_WINDOW = 1 << 20, 8 << 20
# Messages of the largest size that may wait on one connection until they are whole.
_UNFINISHED = 4
# What the reset of a call costs of a peer's credit.
_COST_RESET = 8
# Streams that are passed over.
_EARLY = 1024
# Seconds that a call of many messages may be silent.
_SILENT = 600.0
# Seconds that a peer has to answer that it heard of the end.
_HEARD_SECONDS = 1.0


class Answers(Protocol):
    """What answers calls; the same for every connection of a server."""

    limits: Limits
    connections: set[Any]
    unfinished: Unfinished

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

    def left(self) -> None:
        """Take note that somebody who waits for an answer has hung up."""
        ...

    def refused(self, error: HttpError, exchange: Any = None) -> None:
        """Count a refusal."""
        ...


class Connection(Flow):
    """One connection of a caller.

    Args:
        answers: Who answers.
    """

    __slots__ = ("_drained", "_early", "_idle", "_reader", "_taken", "answers")

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers = answers
        self._reader = HeadReader(HEADERS)
        # Streams that were answered before their caller had sent all: what still comes of them is passed over.
        self._early: dict[int, None] = {}
        # Bytes that came since the peer was told that it may send more.
        self._taken = 0
        # Since when no call is under way, or the connection ends.
        self._idle = 0.0
        # How far the end of the connection is: 0 nothing said, 1 said, 2 the peer has heard it.
        self._drained = 0

    # -- what the transport says

    def connection_made(self, transport: Any) -> None:
        """Say what we take."""
        self.transport = transport
        self._idle = time.monotonic()
        self.answers.connections.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.end(Code.PROTOCOL_ERROR)
            return
        ours = settings(
            {
                Setting.MAX_CONCURRENT_STREAMS: CALLS,
                Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                Setting.MAX_HEADER_LIST_SIZE: HEADERS,
            }
        )
        transport.write(ours + window_update(0, _CONNECTION_WINDOW - WINDOW))
        if self.answers.crowded:
            self.refused(HttpError(503, "too-many-connections", "the server has no room; try again"))
            self.end(Code.ENHANCE_YOUR_CALM)
            farewell(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it; what is still being answered has nobody to go to."""
        self.answers.connections.discard(self)
        self.transport = None
        self._let_go()

    # -- requests

    def opened(self, stream: int, flags: int, block: bytes, now: float) -> None:
        """Begin a call, or end one: headers after the messages are its end."""
        known = self._reader.read(block)
        if stream <= self.last or not stream & 1:
            self._trail(stream, flags)
            return
        self.last = stream
        if known.wrong:
            raise StreamFault(stream, Code.PROTOCOL_ERROR)
        if len(self.calls) >= CALLS or self._drained > 1:
            raise StreamFault(stream, Code.REFUSED_STREAM)
        call = self.calls[stream] = Call(self, stream, known, self.initial, now)
        try:
            self.answers.admit(call, now)
            if known.lasting:
                self._reader.keep(block, known)
            if call.route.streams:
                call.begin_turns()
            if known.timeout >= 0 and (call.lasts or known.timeout < self.answers.limits.total_seconds):
                call.timer = asyncio.get_running_loop().call_later(known.timeout, self._expire, call)
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

    def came(self, stream: int, flags: int, data: bytes, begin: int, end: int) -> None:
        """Take a part of a call's messages."""
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
            self.spend(1)
        try:
            call.take(data, begin, end)
            if flags & END_STREAM:
                call.end()
            elif call.taken > _STREAM_WINDOW >> 1:
                self.grant(call)
            if call.held or call.lasts or not flags & END_STREAM:
                call.hold()
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
            raise ConnectionFault(Code.PROTOCOL_ERROR if stream > self.last or not stream & 1 else Code.STREAM_CLOSED)
        self.spend(1)
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
        held = sum([call.buffered for call in self.calls.values()]) - self.answers.limits.body * _UNFINISHED
        if held > 0:
            self._make_room(held)
        self.transport.write(window_update(0, self._taken))
        self._taken = 0

    def _make_room(self, size: int) -> None:
        """Refuse the largest of the calls whose messages are not whole, until so many bytes are free."""
        for call in sorted(self.calls.values(), key=lambda call: -call.buffered):
            if size <= 0:
                break
            size -= call.buffered
            call.refuse(HttpError(429, "too-many-requests", "too many large messages at once; try again"))

    # -- the end of a call

    def now(self) -> float:
        """Return the time, of the monotonic clock."""
        return time.monotonic()

    def done(self, call: Call) -> None:
        """Let go of a call whose answer was written."""
        if not call.ended:
            # The caller need not send the rest.
            self.transport.write(reset(call.stream, Code.NO_ERROR))
            self._pass_over(call.stream)
        self.earn()
        self._forget(call)

    def given_up(self, stream: int) -> None:
        """Let go of a call whose caller does not wait for an answer any more."""
        self._early.pop(stream, None)
        call = self.calls.get(stream)
        self.spend(_COST_RESET if call is not None else 1)
        if call is not None:
            self._forget(call)
            self.answers.left()

    def reset(self, fault: StreamFault) -> None:
        """End a stream that broke a rule."""
        self.spend(_COST_RESET)
        self.refused(HttpError(400, "not-http2", "this stream is not in HTTP/2"))
        self.transport.write(reset(fault.stream, fault.code))
        call = self.calls.get(fault.stream)
        if call is None or not call.ended:
            self._pass_over(fault.stream)
        if call is not None:
            self._forget(call)
            self.answers.left()

    def refused(self, error: HttpError) -> None:
        """Count what was refused and is no call."""
        self.answers.refused(error)

    def _pass_over(self, stream: int) -> None:
        self._early[stream] = None
        if len(self._early) > _EARLY:
            del self._early[next(iter(self._early))]

    def _forget(self, call: Call) -> None:
        call.forget()
        self.calls.pop(call.stream, None)
        self.waiting.pop(call.stream, None)
        if not self.calls:
            self._idle = time.monotonic()
            if self._drained > 1 and not self.closed:
                self.end(Code.NO_ERROR)

    def _expire(self, call: Call) -> None:
        """End a call whose time is up."""
        call.timer = None
        if not call.over:
            self.answers.left()
            call.out = b""
            call.refuse(HttpError(504, "deadline-exceeded", "the caller's time was up before the answer was there"))

    # -- the end of the connection

    def overdue(self, now: float, limits: Limits) -> bool:
        """Cut what takes too long or what nobody uses; say whether the connection ends for it."""
        if self.transport is None:
            return False
        if self.closed:
            # It does not even take why it ends.
            if now - self._idle > limits.header_seconds:
                self.transport.abort()
            return True
        if self.late(now, limits.total_seconds if self.calls else limits.header_seconds):
            self.transport.abort()
            return True
        for call in list(self.calls.values()):
            if call.idle:
                if now - call.heard > _SILENT:
                    call.refuse(HttpError(504, "deadline-exceeded", "nothing has come for a long time; call again"))
            elif now - (call.since or call.heard) > limits.total_seconds:
                self._slow(call)
        if not self.calls and self.settled and now - self._idle > limits.keep_alive:
            self.end(Code.NO_ERROR)
            return True
        return False

    def drain(self) -> None:
        """End after what is under way; called again and again until it is over."""
        if self.transport is None or self.closed:
            return
        if not self._drained:
            self._drained = 1
            self._idle = time.monotonic()
            # What the peer has sent before it hears of this is still taken (RFC 9113, section 6.8).
            self.transport.write(goaway(MAX_WINDOW, Code.NO_ERROR) + frame(Kind.PING, 0, 0, PING))
        elif self._drained == 1 and time.monotonic() - self._idle > _HEARD_SECONDS:
            self.heard()
        if self._drained > 1:
            for call in list(self.calls.values()):
                if call.idle:
                    call.refuse(HttpError(503, "not-ready", "the server ends; call again"))
            if not self.calls:
                self.end(Code.NO_ERROR)

    def heard(self) -> None:
        """Take no new call from now on: the peer knows that none will be answered."""
        if self._drained == 1:
            self._drained = 2
            self.transport.write(goaway(self.last, Code.NO_ERROR))

    def end(self, code: Code) -> None:
        """Say why the connection ends, and end it."""
        self._let_go()
        self._idle = time.monotonic()
        super().end(code)

    def _let_go(self) -> None:
        self.closed = True
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.forget()
        if calls:
            self.answers.left()
        self.waiting.clear()

    def _slow(self, call: Call) -> None:
        """End a call that does not come to its end."""
        self.answers.left()
        if not call.begun:
            call.refuse(HttpError(504, "deadline-exceeded", "the call took too long"))
            return
        self.transport.write(reset(call.stream, Code.CANCEL))
        self._forget(call)
