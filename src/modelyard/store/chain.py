"""The chain of events: each carries a hash over the one before it, so that no row can be changed alone.

The same bytes on every database: a chain that was written by one ledger holds in another.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from modelyard._kit.digest import canonical
from modelyard._kit.errors import ModelyardError, Tampered
from modelyard.records import Event
from modelyard.store.base import Fault

__all__ = ["COLUMNS", "Row", "event_of", "link", "linked", "row_of", "verified"]

# An event as the database keeps it: its fields in the order of `COLUMNS`, the payload as canonical JSON.
Row = tuple[Any, ...]

COLUMNS = "e.seq, e.time, e.run, e.step, e.kind, e.actor, e.payload, e.hash"


def link(last: str, seq: int, time: float, run: str, step: str, kind: str, actor: str, body: bytes) -> str:
    """Return the hash of an event: SHA-256 over the hash before it and every field, as canonical JSON."""
    return hashlib.sha256(canonical((last, seq, time, run, step, kind, actor, msgspec.Raw(body)))).hexdigest()


def linked(row: Row, last: str) -> str:
    """Return the hash that a row must carry behind an event with the hash `last`."""
    seq, time, run, step, kind, actor, body, _ = row
    return link(last, seq, time, run, step, kind, actor, body.encode())


def event_of(row: Row) -> Event:
    """Return the event of a row.

    Raises:
        Tampered: The payload is no JSON.
    """
    seq, time, run, step, kind, actor, body, hashed = row
    try:
        payload = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise Tampered(
            "ledger-changed",
            f"event {seq} cannot be read: {error}",
            hint="`modelyard verify --ledger` names what was changed",
        ) from error
    return Event(seq=seq, time=time, run=run, step=step, kind=kind, actor=actor, payload=payload, hash=hashed)


def row_of(event: Event) -> Row:
    """Return the row of an event."""
    body = canonical(event.payload).decode()
    return (event.seq, event.time, event.run, event.step, event.kind, event.actor, body, event.hash)


def verified(rows: Iterable[Row], head: Callable[[], Row | None], fold: Callable[[Event], object]) -> Iterator[Fault]:
    """Yield what does not hold in a chain, and fold each event on the way.

    Args:
        rows: Every event, in order.
        head: Returns what the database says of the newest event, `(seq, hash)`; called when the rows have ended.
        fold: Takes each event, e.g. into a second set of kept tables.
    """
    seq, last = 0, ""
    for row in rows:
        name = f"event {row[0]} ({' '.join(str(part) for part in (row[4], row[3]) if part)})"
        if row[0] != seq + 1:
            yield Fault(seq + 1, _missing(seq + 1, row[0] - 1))
        elif not _holds(row, last):
            yield Fault(row[0], f"{name} was changed after it was written")
        try:
            fold(event_of(row))
        except (ModelyardError, KeyError, TypeError, AttributeError, sqlite3.Error) as error:
            yield Fault(row[0], f"{name} cannot be folded: {error!r}")
        seq, last = row[0], row[7]
    newest = head()
    if newest is None or newest[0] < seq:
        yield Fault(0, f"the head of the ledger was changed: the newest event is {seq}")
    elif newest[0] > seq:
        yield Fault(seq + 1, _missing(seq + 1, newest[0]))
    elif newest[1] != last:
        yield Fault(seq, f"the head of the ledger has another hash than event {seq}")


def _holds(row: Row, last: str) -> bool:
    try:
        return bool(linked(row, last) == row[7])
    except (AttributeError, TypeError, ValueError):
        # A column changed to another type.
        return False


def _missing(first: int, end: int) -> str:
    if first == end:
        return f"event {first} is missing: it was deleted after it was written"
    return f"events {first} to {end} are missing: they were deleted after they were written"
