"""What a call ends with: the status of gRPC for each of HTTP, and the headers that say so.

Statuses are those of the gRPC documents (`statuscodes.md`, `http-grpc-status-mapping.md`); headers are written without
HPACK's dynamic table, so that the bytes of most answers are constants.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

from modelyard.serving.errors import HttpError

__all__ = ["Status", "head_of", "literal", "refusal", "status_of", "trailers"]


class Status(IntEnum):
    """Statuses of gRPC that this server gives."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_BY_HTTP = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    409: Status.ABORTED,
    413: Status.RESOURCE_EXHAUSTED,
    415: Status.UNIMPLEMENTED,
    422: Status.INVALID_ARGUMENT,
    429: Status.RESOURCE_EXHAUSTED,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
}
# What is refused because nobody has made it, whatever HTTP calls it.
_UNMADE = frozenset(("not-supported", "route-not-found"))
# Bytes that `grpc-message` holds as they are: what is visible in ASCII, and the space, but not the percent sign.
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}
_SHORT = 127


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK writes it without any table and without Huffman's code (RFC 7541, section 6.2.2)."""
    return b"\0%s%s%s%s" % (_length(len(name)), name, _length(len(value)), value)


def _length(size: int) -> bytes:
    """Return an integer with a prefix of seven bits (RFC 7541, section 5.1)."""
    if size < _SHORT:
        return bytes((size,))
    parts, size = [_SHORT], size - _SHORT
    while size > 0x7F:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*parts, size))


# `:status: 200` stands in HPACK's static table, and so does the name `content-type`.
_ANSWER = b"\x88\x0f\x10\x10application/grpc"
_OK, _ID = literal(b"grpc-status", b"0"), literal(b"x-request-id", b"")[:-1]


@lru_cache(64)
def head_of(version: str) -> bytes:
    """Return the headers of an answer that a version of a model gave, or none."""
    if not version:
        return _ANSWER
    return _ANSWER + literal(b"x-model-version", version.encode())


def trailers(request_id: str) -> bytes:
    """Return what ends an answer."""
    given = request_id.encode("latin-1")
    if len(given) < _SHORT:
        return b"%s%s%c%s" % (_OK, _ID, len(given), given)
    return _OK + literal(b"x-request-id", given)


def status_of(error: HttpError) -> Status:
    """Return the status of gRPC for an error."""
    if error.code in _UNMADE:
        return Status.UNIMPLEMENTED
    return _BY_HTTP.get(error.status, Status.INTERNAL)


def refusal(error: HttpError, request_id: str) -> bytes:
    """Return what ends a call that is refused: status, `[code] sentence`, id, and what else the error says."""
    text = f"[{error.code}] {error.message}".encode()
    message = b"".join([b"%c" % one if one in _PLAIN else b"%%%02X" % one for one in text])
    more = [literal(name, value) for name, value in error.headers]
    return b"".join(
        [
            literal(b"grpc-status", b"%d" % status_of(error)),
            literal(b"grpc-message", message),
            _ID + _length(len(request_id)) + request_id.encode("latin-1"),
            *more,
        ]
    )
