"""What is sent on one connection: answers, as much of them as the caller takes (RFC 9113, section 5.2)."""

from __future__ import annotations

from modelyard.serving.grpc.calls import Call
from modelyard.serving.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME,
    MAX_FRAME,
    MAX_WINDOW,
    WINDOW,
    Code,
    ConnectionFault,
    Kind,
    StreamFault,
    frame,
)
from modelyard.serving.grpc.link import Link
from modelyard.serving.grpc.status import head_of, trailers

__all__ = ["Flow"]

_pack = FRAME.pack


class Flow(Link):
    """Sends answers, and keeps what the caller does not take yet.

    Attributes:
        calls: Calls under way, by the number of their stream.
        initial: Bytes that the caller takes on a new stream.
        waiting: Calls whose answers wait until the caller takes more.
    """

    __slots__ = ("_window", "calls", "initial", "waiting")

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[int, Call] = {}
        self.waiting: dict[int, Call] = {}
        self._window = self.initial = WINDOW

    def done(self, call: Call) -> None:
        """Let go of a call whose answer was written."""
        raise NotImplementedError

    def grant(self, call: Call) -> None:
        """Tell the peer that it may send more on a stream, if there is room for it."""
        raise NotImplementedError

    # -- answers

    def answered(self, call: Call, body: bytes) -> None:
        """Write the one answer of a call."""
        if self.transport is None:
            return
        size = len(body) + 5
        tail = trailers(call.id)
        if size > self._window or size > call.window or size > MAX_FRAME or self.resize:
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
        self.done(call)

    def send(self, call: Call, data: bytes) -> None:
        """Write a part of an answer, as much of it as the caller takes now."""
        if data:
            if not call.out:
                call.out = bytearray()
            call.out += data
        self._push(call)

    def _push(self, call: Call) -> None:
        """Write what the caller takes now of what waits for it."""
        if self.transport is None or call.over:
            return
        parts: list[bytes] = []
        stream, out = call.stream, call.out
        if not call.begun and (out or call.tail):
            call.begun = True
            head, self.resize = self.resize + head_of(call.by), b""
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
            self.waiting[stream] = call
        else:
            self.waiting.pop(stream, None)
            if call.tail:
                self.done(call)
            elif at:
                call.go_on()
                self.grant(call)

    def _end_of(self, call: Call) -> bytes:
        resize, self.resize = self.resize, b""
        return frame(Kind.HEADERS, END_HEADERS | END_STREAM, call.stream, resize + call.tail)

    # -- what the caller takes

    def more(self, stream: int, size: int) -> None:
        """Send what had to wait for so many bytes more."""
        call = self.calls.get(stream)
        if stream and call is None:
            if stream > self.last or not stream & 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR)
            self.spend(1)
        elif not size:
            raise StreamFault(stream, Code.PROTOCOL_ERROR) if stream else ConnectionFault(Code.PROTOCOL_ERROR)
        elif call is None:
            self._window += size
            if self._window > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
            if not self.waiting or size < MAX_FRAME:
                self.spend(1)
            self._push_all()
        else:
            call.window += size
            if call.window > MAX_WINDOW:
                raise StreamFault(stream, Code.FLOW_CONTROL_ERROR)
            if stream not in self.waiting or size < MAX_FRAME:
                self.spend(1)
            if stream in self.waiting:
                self._push(call)

    def resized(self, window: int) -> None:
        """Send what had to wait for a larger window on every stream."""
        if window > MAX_WINDOW:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
        more, self.initial = window - self.initial, window
        for call in self.calls.values():
            call.window += more
            if call.window > MAX_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR)
        self._push_all()

    def _push_all(self) -> None:
        for call in list(self.waiting.values()):
            if self._window <= 0:
                break
            self._push(call)
