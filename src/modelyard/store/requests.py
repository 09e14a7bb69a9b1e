"""The request log of an endpoint: written by its server in blocks, read by whoever watches it.

A block holds what was answered within some milliseconds, as one JSON text in one row of SQLite: a row for each request
cost twenty times as much (docs/decisions/012). Outcomes that become known later stand beside the blocks, by the id
of their request; a block is never changed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelyard.store.packed import Packed

__all__ = [
    "Answered",
    "Block",
    "connect",
    "encode",
    "ids_of",
    "known_of",
    "newest",
    "put_truths",
    "truths_of",
    "write_block",
]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (
    seq INTEGER PRIMARY KEY, first REAL NOT NULL, last REAL NOT NULL, rows INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS truths (id TEXT PRIMARY KEY, truth TEXT NOT NULL) WITHOUT ROWID;
"""


class Answered(msgspec.Struct, array_like=True, gc=False):
    """One request that was answered.

    Attributes:
        id: Its id; row n of several is `id/n`.
        time: When, in seconds since 1970 UTC.
        model: Digest of the model that answered.
        caller: Name of who asked.
        ms: Milliseconds from the parsed request to the answer.
        trace: Id that ties it to the deployment's run, or that the caller sent.
        inputs: One a row: value by column name; an empty object where it could not be written down. Many rows are
            written packed, and read as lists.
        outputs: One a row: `prediction`, and for a classifier `probabilities` by class.
    """

    id: str
    time: float
    model: str
    caller: str
    ms: float
    trace: str
    inputs: list[Any]
    outputs: list[Any]

    def row_id(self, at: int) -> str:
        """Return the id of one of its rows."""
        return self.id if len(self.inputs) == 1 else f"{self.id}/{at}"


class _Stored(Answered, array_like=True, gc=False):
    """One request as it stands in a block: its rows may be packed."""

    inputs: list[Any] | Packed  # type: ignore[assignment]
    outputs: list[Any] | Packed  # type: ignore[assignment]


class _Name(msgspec.Struct, array_like=True, gc=False):
    """The part of a request that its ids are made of."""

    id: str
    time: float
    model: str
    caller: str
    ms: float
    trace: str
    inputs: list[msgspec.Raw] | Packed


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[_Stored]).decode
_decode_names = msgspec.json.Decoder(list[_Name]).decode


def connect(path: Path) -> sqlite3.Connection:
    """Open a log for writing, and make it at first use.

    Raises:
        sqlite3.Error: It is no log, or cannot be written.
    """
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


class Block(msgspec.Struct, frozen=True, gc=False):
    """What was answered within some milliseconds.

    Attributes:
        first: Time of the first request, in seconds since 1970 UTC.
        last: Time of the last.
        rows: Rows of all requests.
        parts: Requests as `encode` made bytes of them, in order.
    """

    first: float
    last: float
    rows: int
    parts: list[bytes]


def encode(answered: Sequence[Answered]) -> bytes:
    """Return requests as a JSON list."""
    return _encode(answered)


def write_block(db: sqlite3.Connection, block: Block) -> None:
    """Write a block, or nothing of it."""
    data = b"[%s]" % b",".join([part[1:-1] for part in block.parts])
    values = (block.first, block.last, block.rows, data)
    db.execute("INSERT INTO blocks (first, last, rows, data) VALUES (?, ?, ?, ?)", values)


def newest(db: sqlite3.Connection, *, since: float = 0.0) -> Iterator[Answered]:
    """Yield requests, the newest first, down to a time."""
    below = 1 << 62
    while found := db.execute(
        "SELECT seq, data FROM blocks WHERE seq < ? AND last >= ? ORDER BY seq DESC LIMIT 1", (below, since)
    ).fetchone():
        below = found[0]
        yield from (_unpacked(one) for one in reversed(_decode(found[1])) if one.time >= since)


def _unpacked(one: _Stored) -> Answered:
    inputs, outputs = (part.rows() if isinstance(part, Packed) else part for part in (one.inputs, one.outputs))
    return Answered(one.id, one.time, one.model, one.caller, one.ms, one.trace, inputs, outputs)


def ids_of(db: sqlite3.Connection) -> set[str]:
    """Return the ids of all rows."""
    found: set[str] = set()
    for (data,) in db.execute("SELECT data FROM blocks"):
        found.update(_ids_in(data))
    return found


def known_of(db: sqlite3.Connection, ids: Collection[str], *, seconds: float) -> tuple[set[str], bool]:
    """Return which of some ids are in the log, and whether as much of it was searched as it takes to say so.

    Args:
        db: The log.
        ids: Ids of rows.
        seconds: Time after which the search ends; it begins with the newest block.
    """
    left, found = set(ids), set[str]()
    until = time.monotonic() + seconds
    below = 1 << 62
    while left:
        block = db.execute("SELECT seq, data FROM blocks WHERE seq < ? ORDER BY seq DESC LIMIT 1", (below,)).fetchone()
        if block is None:
            return found, True
        if time.monotonic() > until:
            return found, False
        below = block[0]
        here = left.intersection(_ids_in(block[1]))
        found |= here
        left -= here
    return found, True


def _ids_in(data: bytes) -> Iterator[str]:
    for one in _decode_names(data):
        if len(one.inputs) == 1:
            yield one.id
        else:
            yield from (f"{one.id}/{at}" for at in range(len(one.inputs)))


def put_truths(db: sqlite3.Connection, truths: Iterable[tuple[str, str]]) -> None:
    """Write the outcomes of rows, by their ids; a newer one replaces an older one."""
    db.executemany(
        "INSERT INTO truths (id, truth) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET truth = excluded.truth", truths
    )


def truths_of(db: sqlite3.Connection, ids: Iterable[str]) -> dict[str, str]:
    """Return the outcomes that are known of rows."""
    found: dict[str, str] = {}
    for one in ids:
        row = db.execute("SELECT truth FROM truths WHERE id = ?", (one,)).fetchone()
        if row is not None:
            found[one] = row[0]
    return found
