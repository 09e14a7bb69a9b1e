"""The ledger on SQLite: append-only, hash-chained events of one project, in one file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import canonical
from modelyard._kit.errors import ModelyardError, NotFound, Tampered, UserError
from modelyard.records import (
    Deployment,
    Draft,
    Event,
    EventKind,
    Fire,
    FireState,
    Run,
    StepRun,
    fire_of,
    fold_run,
    step_run,
)
from modelyard.store import folds
from modelyard.store.base import Fault
from modelyard.store.disk import explain, explained

__all__ = ["SqliteLedger"]

# Number of the layout below, kept in the file; a change of the layout raises it.
_FORMAT = 2
# "MYRD": says to `file` and to us that this database is a ledger.
_APPLICATION = 0x4D595244
_BUSY_SECONDS = 30.0
_PAGE = 1000

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
_COLUMNS = "e.seq, e.time, e.run, e.step, e.kind, e.actor, e.payload, e.hash"
_RUN_COLUMNS = "id, project, status, started, ended, actor, plan, reason, result, fire, trace"
_INSERT = "INSERT INTO events (seq, time, run, step, kind, actor, payload, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_READ_HEAD = "SELECT seq, hash FROM head WHERE one = 1"


class SqliteLedger:
    """Events in a SQLite file in WAL mode; processes and threads may share it.

    Args:
        path: The file; made at first use.
        clock: Source of the events' times.

    Raises:
        UserError: The folder cannot be written, the disk is full, or a newer Modelyard made the file.
        Tampered: The file is not a ledger.
    """

    def __init__(self, path: Path, *, clock: Clock = system_clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._connections: dict[int, sqlite3.Connection] = {}
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _prepare(path)
            self._db()

    # -- writing

    def append(self, *drafts: Draft, durable: bool = False) -> list[Event]:
        """Write the events together or not at all; see `Ledger.append`."""
        if not drafts:
            return []
        events: list[Event] = []
        with self._transaction(durable=durable) as execute:
            seq, last = execute(_READ_HEAD).fetchone()
            for draft in drafts:
                seq += 1
                time = float(self._clock())
                body = canonical(draft.payload)
                last = _link(last, seq, time, draft.run, draft.step, draft.kind, draft.actor, body)
                row = (seq, time, draft.run, draft.step, draft.kind, draft.actor, body.decode(), last)
                event = Event(
                    seq=seq,
                    time=time,
                    run=draft.run,
                    step=draft.step,
                    kind=draft.kind,
                    actor=draft.actor,
                    payload=draft.payload,
                    hash=last,
                )
                execute(_INSERT, row)
                folds.apply(execute, event)
                events.append(event)
            execute("UPDATE head SET seq = ?, hash = ? WHERE one = 1", (seq, last))
        return events

    def rebuild(self) -> None:
        """Empty the kept tables and fold them from the events again."""
        with self._transaction() as execute:
            folds.drop(execute)
            folds.create(execute)
            for row in execute(f"SELECT {_COLUMNS} FROM events e ORDER BY e.seq"):  # noqa: S608 - our own names
                folds.apply(execute, _event(row))

    # -- reading

    def events(
        self, *, after: int = 0, run: str = "", kinds: Sequence[EventKind] = (), limit: int = 0
    ) -> Iterator[Event]:
        """Yield events in order; see `Ledger.events`. What is appended meanwhile is yielded too."""
        where = "e.seq > ?"
        given: tuple[str, ...] = ()
        if run:
            where += " AND e.run = ?"
            given += (run,)
        if kinds:
            where += f" AND e.kind IN ({', '.join('?' * len(kinds))})"
            given += tuple(kinds)
        sql = f"SELECT {_COLUMNS} FROM events e WHERE {where} ORDER BY e.seq LIMIT ?"  # noqa: S608 - values are bound
        left = limit or -1
        while left:
            # Page by page: a cursor left open would hold back the WAL and block this process's own appends.
            size = min(left, _PAGE) if limit else _PAGE
            page = self._all(sql, (after, *given, size))
            yield from (_event(row) for row in page)
            if len(page) < size:
                return
            after = page[-1][0]
            left -= len(page) if limit else 0

    def head(self) -> tuple[int, str]:
        """Return sequence number and hash of the newest event; `(0, "")` for an empty ledger."""
        seq, last = self._all(_READ_HEAD)[0]
        return seq, last

    def output(self, key: str) -> StepRun | None:
        """Return the finished step with this output key, or none."""
        return self._step(f"SELECT {_COLUMNS} FROM steps s JOIN events e ON e.seq = s.seq WHERE s.key = ?", key)  # noqa: S608

    def latest(self, step: str) -> StepRun | None:
        """Return the newest finished step of this name in any run, or none.

        A cached step counts as its finished one, done again at the time of its use.
        """
        return self._step(
            f"SELECT {_COLUMNS} FROM steps s JOIN events e ON e.seq = s.seq"  # noqa: S608 - our own names
            " WHERE s.step = ? ORDER BY s.used DESC LIMIT 1",
            step,
        )

    def run(self, run_id: str) -> Run | None:
        """Return one run with its steps, folded from its events."""
        return fold_run(self.events(run=run_id))

    def runs(self, *, before: str = "", limit: int = 50) -> list[Run]:
        """Return runs, newest first, without their steps.

        Raises:
            NotFound: There is no run `before`.
        """
        limit = limit or -1
        if not before:
            return [_run(r) for r in self._all(f"SELECT {_RUN_COLUMNS} FROM runs ORDER BY seq DESC LIMIT ?", (limit,))]  # noqa: S608
        found = self._all("SELECT seq FROM runs WHERE id = ?", (before,))
        if not found:
            raise NotFound.of("run", before, (r.id for r in self.runs()))
        sql = f"SELECT {_RUN_COLUMNS} FROM runs WHERE seq < ? ORDER BY seq DESC LIMIT ?"  # noqa: S608 - our own names
        return [_run(r) for r in self._all(sql, (found[0][0], limit))]

    def fire(self, fire_id: str) -> Fire | None:
        """Return one fire as it stands, or none."""
        found = self._fires("f.id = ?", (fire_id,), "LIMIT 1")
        return found[0] if found else None

    def fires(
        self, *, trigger: str = "", states: Sequence[FireState] = (), newest: bool = False, limit: int = 0
    ) -> list[Fire]:
        """Return fires in the order in which they were written down, or the newest first; see `Ledger.fires`."""
        where = "1 = 1"
        given: tuple[str, ...] = ()
        if trigger:
            where, given = f"{where} AND f.trigger = ?", (*given, trigger)
        if states:
            where, given = f"{where} AND f.state IN ({', '.join('?' * len(states))})", (*given, *states)
        return self._fires(where, given, f"ORDER BY f.seq {'DESC' if newest else 'ASC'} LIMIT {int(limit) or -1}")

    def seen(self, trigger: str) -> dict[str, str]:
        """Return the state of the world that a trigger has fired for: name of an item -> its version."""
        return dict(self._all("SELECT item, version FROM seen WHERE trigger = ?", (trigger,)))

    def alias(self, endpoint: str, alias: str) -> Deployment | None:
        """Return where the alias points now, or none."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM aliases a JOIN events e ON e.seq = a.seq"  # noqa: S608 - our own names
            " WHERE a.endpoint = ? AND a.alias = ? ORDER BY a.seq DESC LIMIT 1",
            (endpoint, alias),
        )
        return _deployment(rows[0]) if rows else None

    def aliases(self, endpoint: str = "") -> list[Deployment]:
        """Return every move of every alias (of one endpoint), oldest first."""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM aliases a JOIN events e ON e.seq = a.seq"  # noqa: S608 - our own names
            " WHERE ?1 = '' OR a.endpoint = ?1 ORDER BY a.seq",
            (endpoint,),
        )
        return [_deployment(row) for row in rows]

    def verify(self) -> list[Fault]:
        """Recompute the chain and every kept table; an empty list means all holds."""
        with explained(self._path):
            # A connection of its own: one snapshot for the whole reading, while others go on appending.
            db = _connect(self._path)
            try:
                db.execute("BEGIN")
                folds.create(db.execute, at="temp")
                faults = [*_verify_chain(db)]
                return faults + [Fault(0, what) for what in folds.differences(db.execute)]
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
        with self._lock:
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

    def _fires(self, where: str, given: tuple[str, ...], tail: str) -> list[Fire]:
        sql = (
            f"SELECT {_COLUMNS}, f.state, f.run, f.why FROM fires f JOIN events e ON e.seq = f.seq WHERE {where} {tail}"  # noqa: S608
        )
        return [fire_of(_event(row[:-3]), state=row[-3], run=row[-2], why=row[-1]) for row in self._all(sql, given)]

    def _step(self, sql: str, value: str) -> StepRun | None:
        rows = self._all(sql, (value,))
        return step_run(_event(rows[0])) if rows else None

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
    db.execute("PRAGMA synchronous = NORMAL")
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
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            for statement in _EVENTS if not old else _NEW_IN_2:
                db.execute(statement)
            folds.drop(db.execute)
            folds.create(db.execute)
            for row in db.execute(f"SELECT {_COLUMNS} FROM events e ORDER BY e.seq"):  # noqa: S608 - our own names
                folds.apply(db.execute, _event(row))
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


def _link(last: str, seq: int, time: float, run: str, step: str, kind: str, actor: str, body: bytes) -> str:
    """Return the hash of an event: over the hash before it and every field."""
    return hashlib.sha256(canonical((last, seq, time, run, step, kind, actor, msgspec.Raw(body)))).hexdigest()


def _event(row: tuple[Any, ...]) -> Event:
    seq, time, run, step, kind, actor, body, link = row
    try:
        payload = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise Tampered(
            "ledger-changed",
            f"event {seq} cannot be read: {error}",
            hint="`modelyard verify --ledger` names what was changed",
        ) from error
    return Event(seq=seq, time=time, run=run, step=step, kind=kind, actor=actor, payload=payload, hash=link)


def _run(row: tuple[Any, ...]) -> Run:
    return Run(**dict(zip(_RUN_COLUMNS.split(", "), row, strict=True)))


def _deployment(row: tuple[Any, ...]) -> Deployment:
    return msgspec.convert(_event(row).payload["deployment"], Deployment)


def _verify_chain(db: sqlite3.Connection) -> Iterator[Fault]:
    """Yield what does not hold in the chain, and fold each event into the kept tables of `temp` on the way."""
    seq, last = 0, ""
    for row in db.execute(f"SELECT {_COLUMNS} FROM events e ORDER BY e.seq"):  # noqa: S608 - our own names
        name = f"event {row[0]} ({' '.join(str(part) for part in (row[4], row[3]) if part)})"
        if row[0] != seq + 1:
            yield Fault(seq + 1, _missing(seq + 1, row[0] - 1))
        elif not _holds(row, last):
            yield Fault(row[0], f"{name} was changed after it was written")
        try:
            folds.apply(db.execute, _event(row))
        except (ModelyardError, KeyError, TypeError, AttributeError, sqlite3.Error) as error:
            yield Fault(row[0], f"{name} cannot be folded: {error!r}")
        seq, last = row[0], row[7]
    head = db.execute(_READ_HEAD).fetchone()
    if head is None or head[0] < seq:
        yield Fault(0, f"the head of the ledger was changed: the newest event is {seq}")
    elif head[0] > seq:
        yield Fault(seq + 1, _missing(seq + 1, head[0]))
    elif head[1] != last:
        yield Fault(seq, f"the head of the ledger has another hash than event {seq}")


def _holds(row: tuple[Any, ...], last: str) -> bool:
    seq, time, run, step, kind, actor, body, link = row
    try:
        return bool(_link(last, seq, time, run, step, kind, actor, body.encode()) == link)
    except (AttributeError, TypeError, ValueError):
        # A column changed to another type.
        return False


def _missing(first: int, end: int) -> str:
    if first == end:
        return f"event {first} is missing: it was deleted after it was written"
    return f"events {first} to {end} are missing: they were deleted after they were written"
