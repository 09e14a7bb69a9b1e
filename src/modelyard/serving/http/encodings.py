"""Compressed bodies, both ways: gzip and deflate, which is what the standard library and every client has.

What comes compressed is unpacked piece by piece, and no further than a plain body might be large: a bomb of zeros is
refused while it grows.
"""

from __future__ import annotations

import zlib

from modelyard.serving.errors import HttpError

__all__ = ["LARGE", "SMALL", "accepted", "inflate", "squeeze"]

# Shorter answers fit in a packet or two, and compressing costs more than sending them; from so many bytes on a thread
# does it, since the loop would stand still for milliseconds.
SMALL, LARGE = 4096, 131_072
_PIECE = 65_536
# Streams that one body may have behind each other; an empty one costs as much work as a full one.
_STREAMS = 500
# How zlib is told the format of its stream: gzip's own head and check, or zlib's, which HTTP calls deflate.
_FORMATS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


def inflate(body: bytes, encoding: bytes, most: int) -> bytes:
    """Return a body as it was before it was compressed.

    Args:
        body: The body as it came.
        encoding: What `Content-Encoding` says.
        most: Bytes that it may have.

    Raises:
        HttpError: It is compressed in another way or several times (415), broken (400), or too large (413).
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in _FORMATS:
        raise HttpError(415, "body-encoding", "a body may be compressed by gzip or deflate, once, or come as it is")
    parts: list[bytes] = []
    left = memoryview(body)
    try:
        # A file of several gzip streams is one file.
        for _ in range(1 if name == b"deflate" else _STREAMS):
            left = left[_stream(left, _FORMATS[name], parts, most) :]
            if not left:
                break
    except zlib.error:
        raise HttpError(400, "body-compressed", "the body is not what its `Content-Encoding` says") from None
    if left:
        raise HttpError(400, "body-compressed", "something follows the compressed body")
    return b"".join(parts)


def _stream(body: memoryview, kind: int, parts: list[bytes], most: int) -> int:
    """Unpack one stream behind what was unpacked before it, and return how many bytes it had."""
    stream = zlib.decompressobj(kind)
    size = sum(map(len, parts))
    # In pieces both ways: what is not used yet of a large body would be copied for each piece that comes out.
    for at in range(0, len(body), _PIECE):
        given: bytes | memoryview = body[at : at + _PIECE]
        while given and not stream.eof:
            part = stream.decompress(given, _PIECE)
            given = stream.unconsumed_tail
            size += len(part)
            if size > most:
                message = f"the body is larger than {most:,} bytes once unpacked; send the rows in several requests"
                raise HttpError(413, "body-too-large", message)
            parts.append(part)
        if stream.eof:
            return min(at + _PIECE, len(body)) - len(stream.unused_data)
    # What the last piece still holds back comes without more input.
    while part := stream.decompress(b"", _PIECE):
        size += len(part)
        if size > most:
            raise HttpError(413, "body-too-large", f"the body is larger than {most:,} bytes once unpacked")
        parts.append(part)
    if not stream.eof:
        raise HttpError(400, "body-compressed", "the compressed body ends before it is whole")
    return len(body)


def accepted(given: bytes) -> bytes:
    """Return the encoding that a caller takes and we make; empty if there is none.

    >>> accepted(b"br, gzip"), accepted(b"deflate;q=1, gzip;q=0"), accepted(b"identity")
    (b'gzip', b'deflate', b'')
    """
    takes = set()
    for part in given.lower().split(b","):
        name, _, weight = part.partition(b";")
        if weight.replace(b" ", b"").rstrip(b"0") not in (b"q=", b"q=0."):
            takes.add(name.strip())
    return next((name for name in (b"gzip", b"deflate") if name in takes), b"")


def squeeze(body: bytes, encoding: bytes) -> bytes:
    """Compress an answer, quickly rather than well."""
    stream = zlib.compressobj(1, zlib.DEFLATED, _FORMATS[encoding])
    return stream.compress(body) + stream.flush()
