"""Read a request log on from where one stopped: its blocks, and its outcomes in the order in which they came."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from typing import NamedTuple

from modelyard.store.requests import Turn, ids_in, turns_in

__all__ = ["Joined", "joined_after", "turns_after", "turns_with"]

# A log that no server has opened since it was written by an older one: its outcomes have no order.
_UNORDERED = "(SELECT row_number() OVER (ORDER BY id) AS seq, id, truth, NULL AS was FROM truths)"


class Joined(NamedTuple):
    """An outcome that became known, or became another one.

    Attributes:
        seq: Its number; those that come later have larger ones.
        id: Id of the row.
        truth: The outcome.
        was: The outcome that stood there before; none the first time.
    """

    seq: int
    id: str
    truth: str
    was: str | None


def joined_after(db: sqlite3.Connection, seq: int, most: int) -> list[Joined]:
    """Return the outcomes that came after a number, so many at most."""
    ordered = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'joined'").fetchone()
    query = f"SELECT seq, id, truth, was FROM {'joined' if ordered else _UNORDERED} WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - of two constants
    return [Joined(*row) for row in db.execute(query, (seq, most))]


def turns_after(db: sqlite3.Connection, seq: int, since: float) -> Iterator[tuple[int, list[Turn]]]:
    """Yield the blocks after a number, each as its number and its turns from a time on."""
    query = "SELECT seq, data FROM blocks WHERE seq > ? AND last >= ? ORDER BY seq LIMIT 1"
    # Block by block: a statement that stays open keeps the write-ahead log from being emptied.
    while found := db.execute(query, (seq, since)).fetchone():
        seq = found[0]
        yield seq, [turn for turn in turns_in(found[1]) if turn.time >= since]


def turns_with(db: sqlite3.Connection, ids: Collection[str], since: float) -> Iterator[Turn]:
    """Yield turns from a time on, those of the newest block first, until each row of some ids was in one.

    There may be others among them: a block is opened as soon as it holds one of the ids.
    """
    left, below = set(ids), 1 << 62
    query = "SELECT seq, data FROM blocks WHERE seq < ? AND last >= ? ORDER BY seq DESC LIMIT 1"
    while left and (found := db.execute(query, (below, since)).fetchone()):
        below = found[0]
        if here := left.intersection(ids_in(found[1])):
            left -= here
            yield from (turn for turn in turns_in(found[1]) if turn.time >= since)
