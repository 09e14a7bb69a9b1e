"""Who has what of this machine: leases of cores, memory and GPUs over all runs of a user.

One small SQLite file that every runner of the user on this machine opens. What is held never adds up to more than the
machine has; a GPU is held by one. Who finds no room draws a ticket: what it waits for is kept for it, so that a step
which asks much is not passed for ever by those which ask little. A holder that died holds nothing any more.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard._kit.errors import UserError
from modelyard._kit.processes import born
from modelyard._kit.stopping import HeldBack
from modelyard._kit.wal import use_wal
from modelyard.pipeline.machine import Machine, machine_folder, machine_name
from modelyard.store.disk import no_space

__all__ = ["Demand", "Lease", "Leases"]

_FORMAT = 1
_BUSY_SECONDS = 30.0
# Who has not asked for so long is doing something else: its place in the line stays, nothing is kept for it.
_KEEN = 2.0
_COLUMNS = "ticket, pid, born, domain, cpus, memory, gpus, devices, held, seen, other, other_born"
_TABLE = """CREATE TABLE leases (ticket INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, born TEXT NOT NULL,
domain TEXT NOT NULL, cpus INTEGER NOT NULL, memory INTEGER NOT NULL, gpus INTEGER NOT NULL, devices TEXT NOT NULL,
held INTEGER NOT NULL, seen REAL NOT NULL, other INTEGER NOT NULL DEFAULT 0, other_born TEXT NOT NULL DEFAULT '')"""


@dataclass(frozen=True, slots=True, order=True)
class Demand:
    """What a step asks for.

    Attributes:
        cpus: Thousandths of a core.
        memory: Bytes; 0: not counted.
        gpus: How many.
    """

    cpus: int
    memory: int = 0
    gpus: int = 0

    def within(self, other: Demand) -> bool:
        """Say whether it asks for no more of anything than the other."""
        return self.cpus <= other.cpus and self.memory <= other.memory and self.gpus <= other.gpus


@dataclass(frozen=True, slots=True)
class Lease:
    """What somebody has until it is given back.

    Attributes:
        number: Of its row.
        demand: How much it is.
        devices: Names of its GPUs.
    """

    number: int
    demand: Demand
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class _Row:
    ticket: int
    pid: int
    born: str
    domain: str
    cpus: int
    memory: int
    gpus: int
    devices: str
    held: int
    seen: float
    other: int
    other_born: str

    @property
    def alive(self) -> bool:
        return born(self.pid) == self.born or bool(self.other and born(self.other) == self.other_born)


class Leases:
    """One runner's way to the machine's leases; threads may share it.

    Args:
        machine: What there is.
        folder: Where the file is; the user's by default.

    Attributes:
        crowded: Whether somebody else had or waited for something when we asked last.

    Raises:
        UserError: The folder cannot be written.
    """

    def __init__(self, machine: Machine, folder: Path | None = None) -> None:
        self._machine = machine
        self._folder = folder or machine_folder()
        self._file = self._folder / f"{machine_name()}.db"
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._born = born(self._pid)
        self._ticket = 0
        self._wants: Demand | None = None
        self._mine: set[int] = set()
        self.crowded = False

    @property
    def wants(self) -> Demand | None:
        """What this runner waits for, with a ticket; none: for nothing."""
        return self._wants

    def ask(self, demand: Demand) -> Lease | None:
        """Take what is asked for if there is room; else draw a ticket for it, unless this runner has one already.

        Nothing that somebody with an earlier ticket waits for is given away.
        """
        mine = self._wants == demand
        with self._transaction() as db:
            rows = _rows(db)
            devices = self._fit(rows, demand, before=self._ticket if mine else 0)
            if devices is None and (dead := [row for row in rows if row.pid != self._pid and not row.alive]):
                db.executemany("DELETE FROM leases WHERE ticket = ?", [(row.ticket,) for row in dead])
                rows = [row for row in rows if row not in dead]
                devices = self._fit(rows, demand, before=self._ticket if mine else 0)
            self.crowded = any(row.ticket not in self._mine and row.ticket != self._ticket for row in rows)
            if devices is not None:
                number = self._write(db, demand, devices=devices, held=1, ticket=self._ticket if mine else 0)
                if mine:
                    self._ticket, self._wants = 0, None
                self._mine.add(number)
                return Lease(number, demand, devices)
            if mine or self._wants is None:
                self._ticket = self._write(db, demand, devices=(), held=0, ticket=self._ticket if mine else 0)
                self._wants = demand
            return None

    def release(self, lease: Lease) -> None:
        """Give a lease back."""
        with self._transaction() as db:
            db.execute("DELETE FROM leases WHERE ticket = ?", (lease.number,))
        self._mine.discard(lease.number)

    def tie(self, lease: Lease, pid: int) -> None:
        """Have a lease held while this process lives too, even if the runner dies first."""
        with self._transaction() as db:
            db.execute("UPDATE leases SET other = ?, other_born = ? WHERE ticket = ?", (pid, born(pid), lease.number))

    def withdraw(self) -> None:
        """Give the ticket back: what was waited for is not wanted any more."""
        if self._ticket:
            with self._transaction() as db:
                db.execute("DELETE FROM leases WHERE ticket = ?", (self._ticket,))
            self._ticket, self._wants = 0, None

    def others_wait(self) -> bool:
        """Say whether somebody else waits for room."""
        with self._transaction() as db:
            now = time.monotonic()
            return any(not row.held and row.ticket != self._ticket and now - row.seen < _KEEN for row in _rows(db))

    def held(self) -> list[tuple[int, Lease]]:
        """Return who, by process id, holds what at this moment."""
        with self._transaction() as db:
            return [
                (row.pid, Lease(row.ticket, Demand(row.cpus, row.memory, row.gpus), tuple(row.devices.split())))
                for row in _rows(db)
                if row.held and row.alive
            ]

    def close(self) -> None:
        """Give everything of this runner back that it still has."""
        if self._db is not None and (left := [*self._mine, self._ticket]):
            with self._transaction() as db:
                db.executemany("DELETE FROM leases WHERE ticket = ?", [(number,) for number in left])
        self._mine.clear()
        self._ticket, self._wants = 0, None
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _fit(self, rows: Sequence[_Row], demand: Demand, *, before: int) -> tuple[str, ...] | None:
        """Return the GPUs for a demand, none of them if it wants none; None if there is no room for it.

        Args:
            rows: Who has and who waits for what.
            demand: What is asked for.
            before: Whose ticket is lower comes first; 0: everybody who waits.
        """
        here = self._machine
        taken = {name for row in rows if row.held for name in row.devices.split()}
        devices = [name for name in here.gpus if name not in taken]
        whole = _Free(round(here.all_cpus * 1000), here.all_memory, len(devices))
        own = _Free(round(here.cpus * 1000), here.memory, len(devices))
        now = time.monotonic()
        for row in rows:
            if row.held:
                whole.take(row)
                if row.domain == here.domain:
                    own.take(row)
        for row in rows:
            if row.held or (before and row.ticket >= before) or now - row.seen >= _KEEN:
                continue
            if row.domain == here.domain:
                own.keep(row)
            elif row.domain and whole.has(Demand(row.cpus, row.memory, row.gpus)):
                continue  # what it waits for is within its own bounds
            whole.keep(row)
        if not (whole.has(demand) and own.has(demand)):
            return None
        return tuple(devices[: demand.gpus])

    def _write(
        self, db: sqlite3.Connection, demand: Demand, *, devices: tuple[str, ...], held: int, ticket: int
    ) -> int:
        values = (held, " ".join(devices), time.monotonic())
        if (
            ticket
            and db.execute(
                "UPDATE leases SET held = ?, devices = ?, seen = ? WHERE ticket = ?", (*values, ticket)
            ).rowcount
        ):
            return ticket
        row = db.execute(
            "INSERT INTO leases (pid, born, domain, cpus, memory, gpus, held, devices, seen) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._pid, self._born, self._machine.domain, demand.cpus, demand.memory, demand.gpus, *values),
        )
        return row.lastrowid or 0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with HeldBack(), self._lock:
            try:
                db = self._db or self._open()
                db.execute("BEGIN IMMEDIATE")
            except (sqlite3.Error, OSError) as error:
                raise no_space(error, self._file) or UserError(
                    "machine-folder",
                    f"cannot keep who has what of this machine in `{self._folder}`: {error}",
                    hint="make the folder writable, or name another in MODELYARD_MACHINE",
                ) from error
            try:
                yield db
                db.execute("COMMIT")
            except BaseException as error:
                # SQLite has done so itself where the disk was full.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                if full := no_space(error, self._file):
                    raise full from error
                raise

    def _open(self) -> sqlite3.Connection:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._file
        try:
            self._db = _prepared(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            # A power cut may tear it, since it is never flushed; what it told was over with the cut.
            for torn in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                with contextlib.suppress(FileNotFoundError):
                    torn.unlink()
            self._db = _prepared(path)
        return self._db


class _Free:
    """What is free of each kind."""

    def __init__(self, cpus: int, memory: int, gpus: int) -> None:
        self.cpus, self.memory, self.gpus = cpus, memory, gpus

    def take(self, row: _Row) -> None:
        self.cpus -= row.cpus
        self.memory -= row.memory

    def keep(self, row: _Row) -> None:
        """Keep free what somebody waits for.

        First the GPUs, then the memory, then the cores: the next kind is only kept once there is enough of the one
        before, so that cores do not idle for hours beside a step that waits for a GPU. Nobody starves: what was
        enough stays enough, since nobody behind may take it.
        """
        for kind in ("gpus", "memory", "cpus"):
            wanted, free = getattr(row, kind), getattr(self, kind)
            setattr(self, kind, free - wanted)
            if free < wanted:
                return

    def has(self, demand: Demand) -> bool:
        return all(
            not wanted or wanted <= free
            for wanted, free in (
                (demand.cpus, self.cpus),
                (demand.memory, self.memory),
                (demand.gpus, self.gpus),
            )
        )


def _rows(db: sqlite3.Connection) -> list[_Row]:
    return [_Row(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM leases ORDER BY ticket")]  # noqa: S608 - our names


def _prepared(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        _prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    # Nothing in it outlives the machine's next start, so nothing is ever flushed to the disk.
    db.execute("PRAGMA synchronous = OFF")
    use_wal(db)
    if db.execute("PRAGMA user_version").fetchone()[0] == _FORMAT:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if db.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            db.execute("DROP TABLE IF EXISTS leases")
            db.execute(_TABLE)
            db.execute(f"PRAGMA user_version = {_FORMAT}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
