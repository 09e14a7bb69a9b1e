"""The request log of an endpoint: written by its server in blocks, read by whoever watches it.

A block holds what was answered within some milliseconds, in one row of SQLite: a row for each request cost twenty times
as much (docs/decisions/012). It is a MessagePack list of turns, each of which holds by column what one version answered
at once. Outcomes that become known later stand beside the blocks, by the id of their request; a block is never changed.
Whoever reads on from where he stopped (`store.tail`) finds outcomes in the order in which they came, in `joined`.
"""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from modelyard._kit.wal import use_wal
from modelyard.store.packed import Packed

__all__ = [
    "LOAD_TEST",
    "Answered",
    "Block",
    "Inputs",
    "Outputs",
    "Turn",
    "answered_last",
    "connect",
    "encode",
    "ids_in",
    "ids_of",
    "is_held",
    "known_of",
    "newest",
    "put_truths",
    "truths_of",
    "turns_in",
    "write_block",
]

# Bytes of a page of a new log: a block is written page by page, and of larger ones each byte costs two thirds as much.
_PAGE = 16_384
# Bytes that are added before they are copied to where they belong.
_ADDED = 16_384_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blocks (
    seq INTEGER PRIMARY KEY, first REAL NOT NULL, last REAL NOT NULL, rows INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS truths (id TEXT PRIMARY KEY, truth TEXT NOT NULL) WITHOUT ROWID;
"""
# Whatever writes an outcome, also a server from before this table, it is noted.
_JOINED = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS joined (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, truth TEXT NOT NULL, was TEXT);
INSERT INTO joined (id, truth) SELECT id, truth FROM truths WHERE NOT EXISTS (SELECT 1 FROM joined);
CREATE TRIGGER IF NOT EXISTS joined_first AFTER INSERT ON truths
    BEGIN INSERT INTO joined (id, truth) VALUES (new.id, new.truth); END;
CREATE TRIGGER IF NOT EXISTS joined_again AFTER UPDATE ON truths WHEN new.truth <> old.truth
    BEGIN INSERT INTO joined (id, truth, was) VALUES (new.id, new.truth, old.truth); END;
COMMIT;
"""


# How the ids of requests begin that somebody made to load an endpoint, and nobody to know an answer. They are logged as
# all others; whoever looks at what callers send leaves them out.
LOAD_TEST = "loadtest-"

# Rows of each request: the JSON of their list, or packed; or those of all of them, packed.
Inputs = list[bytes | Packed] | Packed
# Answers to requests, one a row; or those to all of them, packed.
Outputs = list[list[Any] | Packed] | Packed


class Answered(NamedTuple):
    """One request that was answered.

    Attributes:
        id: Its id; row n of several is `id/n`.
        time: When, in seconds since 1970 UTC.
        model: Digest of the model that answered.
        caller: Name of who asked.
        ms: Milliseconds from the parsed request to the answer.
        trace: Id that ties it to the deployment's run, or that the caller sent.
        inputs: One a row: value by column name; an empty object where it could not be written down.
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


class Turn(msgspec.Struct, array_like=True, gc=False):
    """What one version answered at once: as many of each list as there are requests.

    Attributes:
        time: When, in seconds since 1970 UTC.
        model: Digest of the model that answered.
        trace: Id that ties it to the deployment's run.
        ids: Id of each request.
        callers: Name of who asked.
        ms: Milliseconds from the parsed request to the answer.
        counts: Rows of each request.
        inputs: What was sent.
        outputs: What was answered.
        keys: By what the version of each request was drawn: a digest of its key, empty for its id, none where nothing
            was drawn. No entries outside of trials, and in blocks from before this field.
    """

    time: float
    model: str
    trace: str
    ids: list[str]
    callers: list[str]
    ms: list[float]
    counts: list[int]
    inputs: Inputs
    outputs: Outputs
    keys: list[str | None] = []

    def only(self, chosen: Sequence[bool]) -> Turn:
        """Return the turn with some of its requests; neither rows nor answers must be packed together."""
        parts = (self.ids, self.callers, self.ms, self.counts, self.inputs, self.outputs, self.keys)
        return Turn(self.time, self.model, self.trace, *(list(compress(part, chosen)) for part in parts))  # type: ignore[arg-type]

    def requests(self) -> Iterator[Answered]:
        """Yield each request by itself."""
        sent, answered = self._each(self.inputs), self.answers()
        for one in zip(self.ids, self.callers, self.ms, sent, answered, strict=True):
            name, caller, ms, inputs, outputs = one
            yield Answered(name, self.time, self.model, caller, ms, self.trace, inputs, outputs)

    def answers(self) -> Iterator[list[Any]]:
        """Yield the outputs of each request, one a row."""
        return self._each(self.outputs)

    def _each(self, part: Inputs | Outputs) -> Iterator[list[Any]]:
        """Yield what a part holds of each request, one a row."""
        if not isinstance(part, Packed):
            yield from map(_listed, part)
            return
        together, at = part.rows(), 0
        for count in self.counts:
            yield together[at : at + count]
            at += count


class _Names(msgspec.Struct, array_like=True, gc=False):
    """The part of a turn that the ids of its rows are made of."""

    time: float
    model: str
    trace: str
    ids: list[str]
    callers: list[str]
    ms: list[float]
    counts: list[int]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Turn]).decode
_decode_names = msgspec.msgpack.Decoder(list[_Names]).decode
_parse = msgspec.json.Decoder(list[Any]).decode
# How MessagePack begins a list whose length takes four bytes.
_LIST = struct.Struct(">BI")
_LIST_OF_MANY = 0xDD


def _listed(part: bytes | list[Any] | Packed) -> list[Any]:
    """Return what stands in a turn as one value a row."""
    if isinstance(part, Packed):
        return part.rows()
    return _parse(part) if isinstance(part, bytes) else part


def connect(path: Path) -> sqlite3.Connection:
    """Open a log for writing, and make it at first use.

    Raises:
        sqlite3.Error: It is no log, or cannot be written.
    """
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None)
    try:
        # A log that is there keeps the pages that it has.
        db.execute(f"PRAGMA page_size={_PAGE}")
        use_wal(db)
        db.execute("PRAGMA synchronous=NORMAL")
        # What was only added is copied at once, in large parts.
        (size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute(f"PRAGMA wal_autocheckpoint={_ADDED // size}")
        db.executescript(_SCHEMA)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'joined_again'").fetchone() is None:
            db.executescript(_JOINED)
    except BaseException:
        db.close()
        raise
    return db


class Block(msgspec.Struct, frozen=True, gc=False):
    """What was answered within some milliseconds.

    Attributes:
        first: Time of the first turn, in seconds since 1970 UTC.
        last: Time of the last.
        rows: Rows of all requests.
        turns: The turns as `encode` made bytes of them, in order.
    """

    first: float
    last: float
    rows: int
    turns: list[bytes]


def encode(turn: Turn) -> bytes:
    """Return a turn as bytes.

    Raises:
        TypeError: It holds what cannot be written down.
    """
    return _encode(turn)


def write_block(db: sqlite3.Connection, block: Block) -> None:
    """Write a block, or nothing of it."""
    data = b"".join((_LIST.pack(_LIST_OF_MANY, len(block.turns)), *block.turns))
    values = (block.first, block.last, block.rows, data)
    db.execute("INSERT INTO blocks (first, last, rows, data) VALUES (?, ?, ?, ?)", values)


def newest(db: sqlite3.Connection, *, since: float = 0.0) -> Iterator[Answered]:
    """Yield requests, the newest first, down to a time."""
    below = 1 << 62
    while found := db.execute(
        "SELECT seq, data FROM blocks WHERE seq < ? AND last >= ? ORDER BY seq DESC LIMIT 1", (below, since)
    ).fetchone():
        below = found[0]
        for turn in reversed(_decode(found[1])):
            if turn.time >= since:
                yield from reversed(list(turn.requests()))


def answered_last(db: sqlite3.Connection, model: str, *, since: float, seconds: float) -> float:
    """Return when a model answered last, of what is found in a time; 0 if it did not since then, or further back.

    Args:
        db: The log.
        model: Its digest.
        since: Time down to which is searched.
        seconds: Time after which the search ends; it begins with the newest block.
    """
    until = time.monotonic() + seconds
    below = 1 << 62
    while found := db.execute(
        "SELECT seq, data FROM blocks WHERE seq < ? AND last >= ? ORDER BY seq DESC LIMIT 1", (below, since)
    ).fetchone():
        below = found[0]
        times = [turn.time for turn in _decode_names(found[1]) if turn.model == model and turn.time >= since]
        if times:
            return max(times)
        if time.monotonic() > until:
            break
    return 0.0


def turns_in(data: bytes) -> list[Turn]:
    """Return the turns of a block, in order.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _decode(data)


def is_held(output: Mapping[str, Any]) -> bool:
    """Say whether a guard has held an answer back: there is none, or the fallback stands in its place."""
    return "withheld" in output or output.get("prediction") is None


def ids_of(db: sqlite3.Connection) -> set[str]:
    """Return the ids of all rows."""
    found: set[str] = set()
    for (data,) in db.execute("SELECT data FROM blocks"):
        found.update(ids_in(data))
    return found


def known_of(db: sqlite3.Connection, ids: Collection[str], *, seconds: float) -> tuple[dict[str, str], bool]:
    """Return who asked for some rows, of those in the log, and whether as much of it was searched as that takes.

    Args:
        db: The log.
        ids: Ids of rows.
        seconds: Time after which the search ends; it begins with the newest block.

    Returns:
        Id -> name of the caller, empty where several callers used one id at a time; and whether all was searched.
    """
    left, found = set(ids), dict[str, str]()
    until = time.monotonic() + seconds
    below = 1 << 62
    while left:
        block = db.execute("SELECT seq, data FROM blocks WHERE seq < ? ORDER BY seq DESC LIMIT 1", (below,)).fetchone()
        if block is None:
            return found, True
        if time.monotonic() > until:
            return found, False
        below = block[0]
        here: dict[str, str] = {}
        for name, caller in _owned_in(block[1]):
            if name in left:
                here[name] = caller if here.get(name, caller) == caller else ""
        found |= here
        left -= here.keys()
    return found, True


def ids_in(data: bytes) -> Iterator[str]:
    """Yield the ids of the rows of a block."""
    for turn in _decode_names(data):
        for name, count in zip(turn.ids, turn.counts, strict=True):
            if count == 1:
                yield name
            else:
                yield from (f"{name}/{at}" for at in range(count))


def _owned_in(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the ids of the rows of a block, each with who asked."""
    for turn in _decode_names(data):
        for name, caller, count in zip(turn.ids, turn.callers, turn.counts, strict=True):
            if count == 1:
                yield name, caller
            else:
                yield from ((f"{name}/{at}", caller) for at in range(count))


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
