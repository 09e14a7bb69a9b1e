"""Switch a SQLite database to a write-ahead log, also when several open it at once."""

from __future__ import annotations

import sqlite3
import time

__all__ = ["use_wal"]

_PAUSE = 0.005


def use_wal(db: sqlite3.Connection, *, seconds: float = 5.0) -> None:
    """Switch to a write-ahead log.

    SQLite's own time-out does not hold for this: whoever comes while another one switches is refused at once.

    Args:
        db: The database.
        seconds: How long to wait for others.

    Raises:
        sqlite3.OperationalError: It stays locked, or cannot be written.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
        else:
            return
