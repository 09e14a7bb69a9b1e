"""Outcomes written into a request log, and what each of them changed there."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from modelyard.store.requests import put_truths, truths_of

__all__ = ["Written"]


class Written:
    """What became of outcomes that were written, each id once; the order is that in which they came.

    Attributes:
        new: Ids that had no outcome before.
        known: Ids that had one, the same or another.
        replaced: Ids whose outcome changed, in the log or within what was written: only the last one counts.
    """

    def __init__(self) -> None:
        self.new: dict[str, None] = {}
        self.known: dict[str, None] = {}
        self.replaced: dict[str, None] = {}

    def put(self, db: sqlite3.Connection, outcomes: Sequence[tuple[str, str]]) -> None:
        """Write ids with their outcomes in one transaction.

        Raises:
            sqlite3.Error: They cannot be written.
        """
        db.execute("BEGIN IMMEDIATE")
        before = truths_of(db, {name for name, _ in outcomes})
        changed = []
        for name, truth in outcomes:
            was = before.get(name)
            if name not in self.new:
                (self.new if was is None else self.known)[name] = None
            if was != truth:
                changed.append((name, truth))
                if was is not None:
                    self.replaced[name] = None
                # An id may come again: its last outcome counts.
                before[name] = truth
        put_truths(db, changed)
        db.execute("COMMIT")
