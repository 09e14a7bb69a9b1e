"""The ledger on SQLite: append-only, hash-chained events of one project, in one file."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.errors import Tampered, UserError
from modelyard._kit.stopping import HeldBack
from modelyard._kit.wal import use_wal
from modelyard.store import folds
from modelyard.store.base import Fault
from modelyard.store.chain import event_of, verified
from modelyard.store.disk import explain, explained
from modelyard.store.sql import ALL_EVENTS, READ_HEAD, SqlLedger

__all__ = ["SqliteLedger"]

# Number of the layout below, kept in the file; a change of the layout raises it.
_FORMAT = 2
# "MYRD": says to `file` and to us that this database is a ledger.
_APPLICATION = 0x4D595244
_BUSY_SECONDS = 30.0

_EVENTS = (
    """CREATE TABLE events (seq INTEGER PRIMARY KEY, time REAL NOT NULL, run TEXT NOT NULL, step TEXT NOT NULL,
    kind TEXT NOT NULL, actor TEXT NOT NULL, payload TEXT NOT NULL, hash TEXT NOT NULL)""",
    "CREATE INDEX events_by_run ON events (run)",
    "CREATE INDEX events_by_kind ON events (kind)",
    # Sequence number and hash of the newest event, so that cutting off the last events is seen too.
    "CREATE TABLE head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL)",
    "INSERT INTO head (one, seq, hash) VALUES (1, 0, '')",
)
# What an older file lacks; its kept tables are made anew in any case.
_NEW_IN_2 = ("CREATE INDEX events_by_kind ON events (kind)",)


class SqliteLedger(SqlLedger):
    """Events in a SQLite file in WAL mode; processes and threads may share it.

    Args:
        path: The file; made at first use.
        clock: Source of the events' times.

    Raises:
        UserError: The folder cannot be written, the disk is full, or a newer Modelyard made the file.
        Tampered: The file is not a ledger.
    """

    def __init__(self, path: Path, *, clock: Clock = system_clock) -> None:
        super().__init__(clock)
        self._path = path
        self._lock = threading.RLock()
        self._connections: dict[int, sqlite3.Connection] = {}
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _prepare(path)
            self._db()

    def rebuild(self) -> None:
        """Empty the kept tables and fold them from the events again."""
        with self._transaction() as execute:
            folds.drop(execute)
            folds.create(execute)
            for row in execute(ALL_EVENTS):
                folds.apply(execute, event_of(row))

    def verify(self) -> list[Fault]:
        """Recompute the chain and every kept table; an empty list means all holds."""
        with explained(self._path):
            # A connection of its own: one snapshot for the whole reading, while others go on appending.
            db = _connect(self._path)
            try:
                db.execute("BEGIN")
                folds.create(db.execute, at="temp")
                rows, execute = db.execute(ALL_EVENTS), db.execute
                faults = [*verified(rows, execute(READ_HEAD).fetchone, lambda event: folds.apply(execute, event))]
                return faults + [Fault(0, what) for what in folds.differences(execute)]
            finally:
                db.close()

    def close(self) -> None:
        """Close the file; the ledger opens it again when it is used again."""
        with self._lock:
            db = self._connections.pop(os.getpid(), None)
            if db is not None:
                db.close()

    # -- inside

    def _db(self) -> sqlite3.Connection:
        # A connection must not be used, nor closed, in a forked child: each process has its own.
        pid = os.getpid()
        db = self._connections.get(pid)
        if db is None:
            db = self._connections[pid] = _connect(self._path)
        return db

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[folds.Execute]:
        with HeldBack(), self._lock:
            try:
                db = self._db()
                execute = db.execute
                if durable:
                    execute("PRAGMA synchronous = FULL")
                try:
                    execute("BEGIN IMMEDIATE")
                    yield execute
                    execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        execute("ROLLBACK")
                    raise
                finally:
                    if durable:
                        execute("PRAGMA synchronous = NORMAL")
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._db().execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise self._explained(error) from error

    def _explained(self, error: sqlite3.Error) -> Exception:
        if isinstance(error, sqlite3.IntegrityError):
            return Tampered(
                "ledger-changed",
                f"the events in `{self._path}` do not fit the chain: {error}",
                hint="`modelyard verify --ledger` names what was changed",
            )
        return explain(error, self._path) or error


def _connect(path: Path) -> sqlite3.Connection:
    target = str(path)
    if path.exists() and not os.access(path.parent, os.W_OK):
        # An auditor's copy: read as it lies there. Without a WAL beside it, it needs no shared memory either.
        wal = path.with_name(f"{path.name}-wal")
        still = "" if wal.exists() and wal.stat().st_size else "&immutable=1"
        target = f"file:{quote(target)}?mode=ro{still}"
    db = sqlite3.connect(
        target, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=target.startswith("file:")
    )
    try:
        db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


def _prepare(path: Path) -> None:
    """Make the tables if the file is new.

    Raises:
        UserError: The file was made by a newer Modelyard.
        Tampered: The file is another program's database.
    """
    db = _connect(path)
    try:
        if _format(db, path) == _FORMAT:
            return
        # SQLite does not wait its turn while the mode is changed to WAL, so the first ones to open take turns here.
        with path.with_name(f".{path.name}.lock").open("wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if _format(db, path) == _FORMAT:
                return
            old = _format(db, path)
            use_wal(db)
            db.execute("BEGIN IMMEDIATE")
            for statement in _EVENTS if not old else _NEW_IN_2:
                db.execute(statement)
            folds.drop(db.execute)
            folds.create(db.execute)
            for row in db.execute(ALL_EVENTS):
                folds.apply(db.execute, event_of(row))
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute(f"PRAGMA user_version = {_FORMAT}")
            db.execute("COMMIT")
    finally:
        db.close()


def _format(db: sqlite3.Connection, path: Path) -> int:
    db.execute("BEGIN")  # one snapshot: another process may be making the tables right now
    application = db.execute("PRAGMA application_id").fetchone()[0]
    number = db.execute("PRAGMA user_version").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    db.execute("COMMIT")
    if application != _APPLICATION:
        if tables:
            raise Tampered(
                "ledger-unreadable",
                f"`{path}` is a database, but not a ledger",
                hint="put back a copy of the file, or move `.modelyard` away and run again",
            )
        return 0
    if number > _FORMAT:
        raise UserError(
            "ledger-too-new",
            f"`{path}` has format {number}, this Modelyard reads up to {_FORMAT}",
            hint="pip install --upgrade modelyard",
        )
    return int(number)
