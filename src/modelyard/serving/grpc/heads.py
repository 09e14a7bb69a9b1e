"""Headers of calls: read once, and remembered by their bytes.

A client's calls differ in their messages: it sends the same few bytes of headers again and again. They mean the same as
long as the table that HPACK keeps for the connection does (RFC 7541), so they need not be read again.
"""

from __future__ import annotations

import re
from typing import Any

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.frames import Code, ConnectionFault

__all__ = ["HeadReader", "Known"]

# Blocks that one connection's reader remembers, and bytes of one of them.
_KEPT, _BYTES = 32, 2048
_PSEUDO = frozenset((b":method", b":path", b":scheme", b":authority"))
# What belongs to a connection of HTTP/1.1 may not come by HTTP/2 (RFC 9113, section 8.2.2).
_FORBIDDEN = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Known:
    """Headers of a call.

    Attributes:
        headers: Name -> value, without those of HTTP/2 itself.
        target: The method's path.
        timeout: Seconds that the caller waits; below 0: it did not say.
        wrong: The headers break a rule of HTTP/2.
        error: Why it cannot be a call of gRPC.
        lasting: The same bytes would say the same once more.
        age: When it was decided who may do this; see `Heads.age`.
        caller: Name of who asks.
        role: Its role.
        route: What it asks for.
        at: The first endpoint where the caller may do this.
        seen: The models of all of them.
    """

    __slots__ = (
        "age",
        "at",
        "caller",
        "error",
        "headers",
        "lasting",
        "role",
        "route",
        "seen",
        "target",
        "timeout",
        "wrong",
    )

    def __init__(self, given: list[tuple[bytes, bytes]]) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.target = b""
        self.timeout = -1.0
        self.error: HttpError | None = None
        self.lasting = True
        self.age = -1
        self.caller = self.role = ""
        self.route: Any = None
        self.at: Any = None
        self.seen: tuple[Any, ...] = ()
        pseudo: dict[bytes, bytes] = {}
        self.wrong = not self._take(given, pseudo)
        if not self.wrong:
            self._read(pseudo)

    def _take(self, given: list[tuple[bytes, bytes]], pseudo: dict[bytes, bytes]) -> bool:
        """Take headers in, and say whether they are well-formed (RFC 9113, section 8.2)."""
        headers = self.headers
        for name, value in given:
            if name[:1] == b":":
                if headers or name in pseudo or name not in _PSEUDO:
                    return False
                pseudo[name] = value
                continue
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in _FORBIDDEN:
                return False
            headers[name] = value if name not in headers else b"%s, %s" % (headers[name], value)
        if headers.get(b"te", b"trailers") != b"trailers":
            return False
        return b":method" in pseudo and bool(pseudo.get(b":scheme")) and bool(pseudo.get(b":path"))

    def _read(self, pseudo: dict[bytes, bytes]) -> None:
        self.target = pseudo[b":path"]
        kind = self.headers.get(b"content-type", b"")
        if pseudo[b":method"] != b"POST" or not _is_grpc(kind):
            self.error = HttpError(415, "not-grpc", "this is not a call in gRPC with messages of protobuf")
        given = self.headers.get(b"grpc-timeout")
        if given is not None:
            found = _TIMEOUT.fullmatch(given)
            if found is None:
                self.error = HttpError(400, "not-grpc", "`grpc-timeout` is up to eight digits and a unit")
            else:
                self.timeout = int(found[1]) * _SECONDS[found[2]]


def _is_grpc(kind: bytes) -> bool:
    """Whether a content type says that messages of protobuf come."""
    plain = kind.partition(b";")[0].strip().lower()
    return plain in (b"application/grpc", b"application/grpc+proto")


class HeadReader:
    """Reads the header blocks of one connection.

    Args:
        most: Bytes that the headers of a call may take, as HPACK counts them.
    """

    __slots__ = ("_decoder", "_known")

    def __init__(self, most: int) -> None:
        from hpack import Decoder

        self._decoder = Decoder(most)
        self._known: dict[bytes, Known] = {}

    def read(self, block: bytes) -> Known:
        """Return what a block says.

        Raises:
            ConnectionFault: It cannot be read, and neither can what follows.
        """
        known = self._known.get(block)
        return known if known is not None else self._decode(block)

    def keep(self, block: bytes, known: Known) -> None:
        """Remember a block whose call was admitted."""
        if block not in self._known and known.lasting and len(block) <= _BYTES:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[block] = known

    def _decode(self, block: bytes) -> Known:
        from hpack.exceptions import HPACKError, OversizedHeaderListError

        table = self._decoder.header_table
        before = self._state(table)
        try:
            given = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM) from None
        except (HPACKError, IndexError, ValueError, UnicodeDecodeError):
            raise ConnectionFault(Code.COMPRESSION_ERROR) from None
        known = Known(list(given))
        after = self._state(table)
        if after[0] is not before[0] or after[1:] != before[1:]:
            # What is known was read with the table as it was; and this block would add to it once more.
            self._known.clear()
            known.lasting = False
        return known

    @staticmethod
    def _state(table: Any) -> tuple[Any, int, int]:
        """Return what differs once something was added to a table: a new entry always stands first in it."""
        entries = table.dynamic_entries
        return (entries[0] if entries else None), len(entries), table.maxsize
