"""Frames of HTTP/2: their kinds, flags and errors, and the bytes of those that we send (RFC 9113, sections 4, 6, 7)."""

from __future__ import annotations

import struct
from enum import IntEnum

__all__ = [
    "ACK",
    "END_HEADERS",
    "END_STREAM",
    "FRAME",
    "LARGEST",
    "MAX_FRAME",
    "MAX_WINDOW",
    "PADDED",
    "PREFACE",
    "PRIORITY_FLAG",
    "WINDOW",
    "Code",
    "ConnectionFault",
    "Kind",
    "Setting",
    "StreamFault",
    "frame",
    "goaway",
    "reset",
    "settings",
    "unpad",
    "window_update",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Length in 24 bits (two bytes and one), kind, flags, stream.
FRAME = struct.Struct(">HBBBI")
# What a peer may send in one frame, and its window on a stream, until it hears otherwise.
MAX_FRAME, WINDOW = 16_384, 65_535
MAX_WINDOW, LARGEST = 2**31 - 1, 2**24 - 1
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20
_PRIORITY_BYTES = 5


class Kind(IntEnum):
    """Kinds of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """Settings that mean something here."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):
    """The peer broke a rule that the whole connection ends for."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


class StreamFault(Exception):
    """The peer broke a rule that one stream ends for."""

    def __init__(self, stream: int, code: Code) -> None:
        super().__init__(stream, code)
        self.stream = stream
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Return the frame that says what we take."""
    return frame(Kind.SETTINGS, 0, 0, b"".join([struct.pack(">HI", key, value) for key, value in values.items()]))


def window_update(stream: int, more: int) -> bytes:
    """Return the frame that lets a peer send so many bytes more."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset(stream: int, code: int) -> bytes:
    """Return the frame that ends a stream."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last: int, code: int) -> bytes:
    """Return the frame that ends a connection.

    Args:
        last: Highest stream that was or will be answered; what is above it may be sent again elsewhere.
        code: Why.
    """
    return frame(Kind.GOAWAY, 0, 0, struct.pack(">II", last, code))


def unpad(data: bytes, begin: int, end: int, flags: int) -> tuple[int, int]:
    """Return where what a frame of DATA or HEADERS carries begins and ends.

    Raises:
        ConnectionFault: There is more padding than frame.
    """
    pad = 0
    if flags & PADDED:
        if begin == end:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        pad = data[begin]
        begin += 1
    if flags & PRIORITY_FLAG:
        if end - begin < _PRIORITY_BYTES:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR)
        begin += _PRIORITY_BYTES
    if begin + pad > end:
        raise ConnectionFault(Code.PROTOCOL_ERROR)
    return begin, end - pad
