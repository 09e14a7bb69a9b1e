"""Keep every answered request, in SQLite, off the way of the answers.

The event loop only appends to a queue; a thread writes what has gathered, many rows a transaction. The queue is
bounded: when the disk cannot keep up, requests wait for room rather than pass unrecorded. A power cut may take the
last moments (WAL, `synchronous=NORMAL`), a SIGTERM takes nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.errors import ServeError

__all__ = ["Entry", "RequestLog"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY,
    time REAL NOT NULL,
    model TEXT NOT NULL,
    caller TEXT NOT NULL,
    inputs TEXT NOT NULL,
    output TEXT NOT NULL,
    ms REAL NOT NULL,
    truth
);
CREATE INDEX IF NOT EXISTS requests_time ON requests (time);
"""
_INSERT = "INSERT INTO requests (id, time, model, caller, inputs, output, ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
_BATCH = 2000
_PAUSE = 0.02

Row = tuple[str, float, str, str, str, str, float]


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered request; what it says is only made when the thread asks for it.

    Attributes:
        id: Id of the request; row n of several is `id/n`.
        time: Seconds since 1970 UTC.
        model: Digest of the model that answered.
        caller: Name of the token.
        count: Rows answered.
        ms: Milliseconds from the parsed request to the answer.
        content: Returns inputs by column name and output, one pair a row.
    """

    id: str
    time: float
    model: str
    caller: str
    count: int
    ms: float
    content: Callable[[], list[tuple[Any, Any]]]

    def rows(self) -> list[Row]:
        """Return one row of the table for each row answered."""
        try:
            pairs = [(_text(inputs), _text(output)) for inputs, output in self.content()]
        except Exception as error:  # noqa: BLE001 - one entry that cannot be written must not stop the others
            sys.stderr.write(f"{self.id} is logged without its content: {type(error).__name__}: {error}\n")
            pairs = [("{}", "{}")] * self.count
        return [
            (
                self.id if self.count == 1 else f"{self.id}/{at}",
                self.time,
                self.model,
                self.caller,
                inputs,
                output,
                self.ms,
            )
            for at, (inputs, output) in enumerate(pairs)
        ]


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class RequestLog:
    """The log of one server.

    Args:
        path: The database; made if missing, readable by its owner only, since it holds what people sent.
        backlog: Rows that may wait.

    Attributes:
        logged: Rows written.
        waited: Requests that had to wait for room.
        trouble: Why writing fails at the moment; empty when it does not.

    Raises:
        ServeError: The database cannot be opened or written (`log-unwritable`).
    """

    def __init__(self, path: Path, *, backlog: int = 50_000) -> None:
        self._path = path
        self._backlog = backlog
        self._queue: deque[Entry] = deque()
        self._queued = 0
        self._written = 0
        self._work = threading.Event()
        self._stop = threading.Event()
        self._deadline = float("inf")
        self.logged = 0
        self.waited = 0
        self.trouble = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._connect() as db:
                db.executescript(_SCHEMA)
            db.close()
        except (OSError, sqlite3.Error) as error:
            raise ServeError(
                "log-unwritable",
                f"requests cannot be logged to `{path}`: {error}",
                where=str(path),
                hint="make the folder writable, or move the file away if it is broken",
            ) from error
        self._thread = threading.Thread(target=self._drain, name="request-log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return self._queued - self._written

    def put(self, entry: Entry) -> None:
        """Take an entry; never waits. Ask `room` before the answer is made."""
        self._queued += entry.count
        self._queue.append(entry)
        self._work.set()

    async def room(self, seconds: float) -> bool:
        """Wait until there is room for another request; say whether there is."""
        if self.waiting < self._backlog:
            return True
        self.waited += 1
        until = time.monotonic() + seconds
        while self.waiting >= self._backlog:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.01)
        return True

    def close(self, *, seconds: float = 20.0) -> int:
        """Write what waits and close; return how many rows could not be written in time."""
        self._deadline = time.monotonic() + seconds
        self._stop.set()
        self._work.set()
        self._thread.join(seconds + 5)
        return self.waiting

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        return db

    def _drain(self) -> None:
        db: sqlite3.Connection | None = None
        while True:
            self._work.wait()
            self._work.clear()
            while self._queue:
                rows: list[Row] = []
                while self._queue and len(rows) < _BATCH:
                    rows += self._queue.popleft().rows()
                db = self._write(db, rows)
                if db is None:
                    return
            if self._stop.is_set():
                if db is not None:
                    db.close()
                return
            # Let some gather: one transaction for many rows.
            self._stop.wait(_PAUSE)

    def _write(self, db: sqlite3.Connection | None, rows: list[Row]) -> sqlite3.Connection | None:
        """Write rows, trying again until it works or the server has to end; none means it did not work."""
        pause = 0.05
        while True:
            try:
                db = db or self._connect()
                _insert(db, rows)
            except sqlite3.Error as error:
                self.trouble = str(error)
                if db is not None:
                    db.close()
                    db = None
                if time.monotonic() > self._deadline:
                    return None
                self._stop.wait(pause) if not self._stop.is_set() else time.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                self._written += len(rows)
                self.logged += len(rows)
                self.trouble = ""
                return db


def _insert(db: sqlite3.Connection, rows: list[Row]) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        try:
            db.execute("SAVEPOINT batch")
            db.executemany(_INSERT, rows)
        except sqlite3.IntegrityError:
            # A caller used an id twice. Both requests were answered, so both are kept.
            db.execute("ROLLBACK TO batch")
            for row in rows:
                try:
                    db.execute(_INSERT, row)
                except sqlite3.IntegrityError:
                    db.execute(_INSERT, (f"{row[0]}~{secrets.token_hex(8)}", *row[1:]))
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
