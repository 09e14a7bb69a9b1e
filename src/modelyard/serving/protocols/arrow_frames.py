"""Look at the frames of an Arrow IPC stream before a reader allocates by what they say.

The stream is messages, each a flatbuffer and a body of buffers (https://arrow.apache.org/docs/format/Columnar.html,
"Serialization and Interprocess Communication"; Message.fbs and Schema.fbs of the same). A flatbuffer is offsets and
lengths that the caller chose, and a compressed buffer says itself how large it will be. Here each of them is held
against the bytes that are there, and against the limit, by reading nothing but those few fields. Only flat columns of
numbers, true and false, and text pass; lists, structs and the rest have no meaning for a model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from modelyard.serving.errors import HttpError, bad

__all__ = ["Frames", "look"]

_INT, _LONG, _SHORT = struct.Struct("<i"), struct.Struct("<q"), struct.Struct("<H")
_PAIR = struct.Struct("<qq")
_CONTINUES = b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
# Types of a column, by their number in the union `Type`, and how many buffers each has.
_NULL, _VIEW = 1, 24
_BUFFERS = {_NULL: 0, 2: 2, 3: 2, 5: 3, 6: 2, 20: 3, _VIEW: 2}
# Each costs the reader more than its bytes.
_MESSAGES = 1000


@dataclass(slots=True)
class _Field:
    name: str
    kind: int
    # Id of its dictionary; below 0: it has none.
    dictionary: int = -1


@dataclass(slots=True)
class Frames:
    """What a stream says of itself, and holds to.

    Attributes:
        names: Names of its columns, in order.
        rows: Rows of all its batches.
    """

    names: list[str]
    rows: int


def look(body: bytes, most: int) -> Frames:
    """Hold what a stream says against the bytes that are there.

    Args:
        body: The stream.
        most: Bytes that its buffers may have once they are unpacked.

    Raises:
        HttpError: It is no stream of flat columns (400), or would be larger (413).
    """
    fields: list[_Field] = []
    rows = size = 0
    seen: set[int] = set()
    try:
        for number, (kind, table, data) in enumerate(_messages(memoryview(body))):
            if number > _MESSAGES:
                raise bad("arrow-unreadable", f"an Arrow stream here holds {_MESSAGES:,} messages at most")
            if (kind == _SCHEMA) is not (number == 0):
                raise _wrong()
            if kind == _SCHEMA:
                fields = _fields(table)
            elif kind == _DICTIONARY:
                id_ = table.long(0)
                of = next((f for f in fields if f.dictionary == id_), None)
                if of is None:
                    raise _wrong()
                seen.add(id_)
                size += _batch(table.table(1), data, [_Field(of.name, of.kind)])[1]
            elif kind == _BATCH:
                if any(f.dictionary >= 0 and f.dictionary not in seen for f in fields):
                    raise _wrong()
                count, unpacked = _batch(table, data, fields)
                rows += count
                size += unpacked
            else:
                raise _wrong()
            if size > most:
                raise HttpError(413, "body-too-large", f"the stream is larger than {most:,} bytes once unpacked")
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError):
        raise _wrong() from None
    if not fields:
        raise _wrong()
    return Frames([f.name for f in fields], rows)


def _wrong() -> HttpError:
    return bad("arrow-unreadable", "the body is not a whole Arrow IPC stream")


def _messages(body: memoryview) -> Iterator[tuple[int, _Table, memoryview]]:
    """Yield kind, header and body of each message, until the stream says that it ends or the bytes do."""
    at = 0
    while at < len(body):
        if body[at : at + 4] != _CONTINUES:
            raise _wrong()
        (length,) = _INT.unpack_from(body, at + 4)
        if length == 0:
            return
        at += 8
        if length < 0 or length % 8 or at + length > len(body):
            raise _wrong()
        head = body[at : at + length]
        message = _Table(head, _INT.unpack_from(head, 0)[0])
        at += length
        size = message.long(3)
        if size < 0 or at + size > len(body):
            raise _wrong()
        yield message.byte(1), message.table(2), body[at : at + size]
        at += size


def _fields(schema: _Table) -> list[_Field]:
    if schema.short(0):
        raise bad("arrow-unreadable", "the stream is big-endian; send it in the usual order of bytes")
    fields = []
    for field in schema.tables(1):
        name, kind = field.text(0), field.byte(2)
        if kind not in _BUFFERS or field.count(5):
            raise bad("column-type", f"column `{name[:60]}` is neither numbers, true and false, nor text")
        encoding = field.optional(4)
        fields.append(_Field(name, kind, -1 if encoding is None else encoding.long(0)))
        if fields[-1].dictionary < 0 and encoding is not None:
            raise _wrong()
    if len({f.name for f in fields}) < len(fields):
        raise bad("arrow-unreadable", "two columns have the same name")
    return fields


def _batch(batch: _Table, data: memoryview, fields: list[_Field]) -> tuple[int, int]:
    """Return the rows of a batch and the bytes of its buffers once unpacked."""
    rows = batch.long(0)
    nodes, buffers = batch.pairs(1), batch.pairs(2)
    if rows < 0 or len(nodes) != len(fields) or any(n != rows or not 0 <= nulls <= rows for n, nulls in nodes):
        raise _wrong()
    expected = sum(2 if f.dictionary >= 0 else _BUFFERS[f.kind] for f in fields)
    views = [f for f in fields if f.kind == _VIEW and f.dictionary < 0]
    more = batch.longs(4) if views else []
    if len(more) != len(views) or min(more, default=0) < 0 or len(buffers) != expected + sum(more):
        raise _wrong()
    # A column of nothing has no buffer, so it alone would hold any number of rows.
    size = 8 * rows * sum(f.kind == _NULL for f in fields)
    packed = batch.optional(3) is not None
    for offset, length in buffers:
        if offset < 0 or length < 0 or offset + length > len(data):
            raise _wrong()
        if packed and length:
            (unpacked,) = _LONG.unpack_from(data[offset : offset + length], 0)
            if unpacked < -1:
                raise _wrong()
            length = max(length, unpacked)
        size += length
    return rows, size


class _Table:
    """A table of a flatbuffer: its fields by number, within bounds."""

    __slots__ = ("_at", "_data", "_end", "_fields")

    def __init__(self, data: memoryview, at: int) -> None:
        if at < 0:
            raise IndexError
        self._data, self._at = data, at
        self._fields = at - _INT.unpack_from(data, at)[0]
        if self._fields < 0:
            raise IndexError
        (self._end,) = _SHORT.unpack_from(data, self._fields)

    def _field(self, number: int) -> int:
        """Return where a field stands; 0 if it is not there."""
        entry = 4 + 2 * number
        if entry + 2 > self._end:
            return 0
        (offset,) = _SHORT.unpack_from(self._data, self._fields + entry)
        return self._at + int(offset) if offset else 0

    def byte(self, number: int) -> int:
        at = self._field(number)
        return self._data[at] if at else 0

    def short(self, number: int) -> int:
        at = self._field(number)
        return int(_SHORT.unpack_from(self._data, at)[0]) if at else 0

    def long(self, number: int) -> int:
        at = self._field(number)
        return int(_LONG.unpack_from(self._data, at)[0]) if at else 0

    def optional(self, number: int) -> _Table | None:
        at = self._field(number)
        return _Table(self._data, at + _INT.unpack_from(self._data, at)[0]) if at else None

    def table(self, number: int) -> _Table:
        found = self.optional(number)
        if found is None:
            raise IndexError
        return found

    def _vector(self, number: int, size: int) -> tuple[int, int]:
        """Return where the items of a vector begin, and how many there are."""
        at = self._field(number)
        if not at:
            return 0, 0
        at += _INT.unpack_from(self._data, at)[0]
        (count,) = _INT.unpack_from(self._data, at)
        if at < 0 or count < 0 or at + 4 + count * size > len(self._data):
            raise IndexError
        return at + 4, count

    def count(self, number: int) -> int:
        return self._vector(number, 1)[1]

    def text(self, number: int) -> str:
        at, count = self._vector(number, 1)
        return str(self._data[at : at + count], "utf-8")

    def tables(self, number: int) -> list[_Table]:
        at, count = self._vector(number, 4)
        places = range(at, at + 4 * count, 4)
        return [_Table(self._data, place + _INT.unpack_from(self._data, place)[0]) for place in places]

    def pairs(self, number: int) -> list[tuple[int, int]]:
        at, count = self._vector(number, 16)
        return [_PAIR.unpack_from(self._data, place) for place in range(at, at + 16 * count, 16)]

    def longs(self, number: int) -> list[int]:
        at, count = self._vector(number, 8)
        return [int(_LONG.unpack_from(self._data, place)[0]) for place in range(at, at + 8 * count, 8)]
