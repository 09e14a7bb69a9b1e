"""The body of the request that comes in, part by part, within the bytes that it and all others may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.serving.errors import HttpError, body_too_large
from modelyard.serving.limits import Unfinished

__all__ = ["RequestBody", "check_coding", "check_host"]

# Parts that are joined, since each takes more room than it holds.
_PARTS = 1024


class RequestBody:
    """What has come of the body of one request; of the next one on the same connection afterwards.

    Args:
        unfinished: Where the bytes are counted that did not come in one read.

    Attributes:
        size: Bytes that have come, also of one that is only listened to.
    """

    __slots__ = ("_held", "_joined", "_most", "_parts", "_unfinished", "size")

    def __init__(self, unfinished: Unfinished) -> None:
        self._unfinished = unfinished
        self._parts: list[bytes] = []
        # Parts at the beginning that are joined; bytes that it may have; bytes that are counted as unfinished.
        self._joined = self._most = self._held = 0
        self.size = 0

    def begin(self, headers: Mapping[bytes, bytes], most: int) -> None:
        """Hold what the headers say of it against how many bytes it may have.

        Raises:
            HttpError: It is too large (413).
        """
        self._most = most
        # The parser has seen to it that it is a number.
        if int(headers.get(b"content-length", 0)) > most:
            raise body_too_large(most)

    def add(self, part: bytes) -> None:
        """Take a part.

        Raises:
            HttpError: There is more than there may be (413).
        """
        self.size += len(part)
        if self.size > self._most:
            raise body_too_large(self._most)
        parts = self._parts
        parts.append(part)
        if len(parts) - self._joined > _PARTS:
            parts[self._joined :] = [b"".join(parts[self._joined :])]
            self._joined += 1

    def hold(self) -> None:
        """Count what has come and is not the whole.

        Raises:
            HttpError: There is too much of all bodies together (429).
        """
        if self._parts:
            more, self._held = self.size - self._held, self.size
            self._unfinished.add(more)

    def take(self) -> bytes:
        """Return the whole, and let go of it."""
        parts = self._parts
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._held:
            self.drop()
        else:
            parts.clear()
            self._joined = 0
        return whole

    def drop(self) -> None:
        """Let go of what has come."""
        self._unfinished.add(-self._held)
        self._held = self._joined = 0
        self._parts.clear()


def check_coding(headers: Mapping[bytes, bytes], parser: Any) -> None:
    """Refuse a body whose end, or whose content, others would take for something else.

    Raises:
        HttpError: It is coded in more ways than one, or in a version of HTTP that has no chunks (400).
    """
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or parser.get_http_version() != "1.1"):
        raise HttpError(400, "not-http", "a body comes with its length or in chunks, and in no other coding")


def check_host(headers: Mapping[bytes, bytes], parser: Any) -> None:
    """Refuse a request that names no host or several: who stands between may have sent it elsewhere (RFC 9112, 3.2).

    Raises:
        HttpError: It does (400); in HTTP/1.0 it need not name one.
    """
    host = headers.get(b"host")
    if (host is None and parser.get_http_version() == "1.1") or (host is not None and b", " in host):
        raise HttpError(400, "not-http", "a request in HTTP/1.1 has one header `Host`")
