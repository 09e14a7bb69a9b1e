"""The store that machines share: ledger and leases in one schema of a Postgres, blobs and tables in a shared folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg  # noqa: TID253 - this module is itself imported where Postgres is used

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.errors import Tampered, UserError
from modelyard.records import Draft, Event
from modelyard.store import folds
from modelyard.store.address import Address, check_schema, parse_address
from modelyard.store.base import Fault, Held
from modelyard.store.blobs import FolderBlobs
from modelyard.store.chain import Row, event_of, verified
from modelyard.store.disk import explained
from modelyard.store.leases import LEASES, LOCK_HEAD, Leases
from modelyard.store.local import FOLDER
from modelyard.store.locks import Locks
from modelyard.store.session import Connection, Session, cleaned, numbered, quoted, transaction
from modelyard.store.sql import ALL_EVENTS, READ_HEAD, SqlLedger
from modelyard.store.tables import DeltaTables

__all__ = ["PostgresLedger", "PostgresStore"]

# Number of the layout below, kept in the schema; a change of the layout raises it.
_FORMAT = 1
_DIALECT = folds.Dialect(
    words={"int": "BIGINT", "real": "DOUBLE PRECISION"},
    table="CREATE TABLE {at}.{name} ({columns})",
    index="CREATE INDEX {name} ON {at}.{table} ({columns})",
)
_MADE = (
    """CREATE TABLE events (seq BIGINT PRIMARY KEY, time DOUBLE PRECISION NOT NULL, run TEXT NOT NULL,
    step TEXT NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL, payload TEXT NOT NULL, hash TEXT NOT NULL)""",
    "CREATE INDEX events_by_run ON events (run, seq)",
    "CREATE INDEX events_by_kind ON events (kind, seq)",
    # Sequence number and hash of the newest event: whoever appends locks this row.
    "CREATE TABLE head (one INT PRIMARY KEY CHECK (one = 1), seq BIGINT NOT NULL, hash TEXT NOT NULL)",
    "INSERT INTO head (one, seq, hash) VALUES (1, 0, '')",
    LEASES,
    # Made last: a schema that has it is whole.
    "CREATE TABLE about (one INT PRIMARY KEY CHECK (one = 1), application TEXT NOT NULL, format INT NOT NULL)",
    f"INSERT INTO about (one, application, format) VALUES (1, 'modelyard', {_FORMAT})",  # noqa: S608 - our number
)
_HAS_ABOUT = """SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = 'about'"""
DraftT = TypeVar("DraftT", bound=Draft)


class PostgresLedger(SqlLedger):
    """Events in a schema of a Postgres; processes, threads and machines may share it.

    Every append is on the server's disk before it returns, as far as the server's own settings go, and arrives once
    even where the connection is lost in the middle of it. The connection is made at first use.

    Args:
        address: The server.
        schema: Schema of the project; made at first use.
        clock: Source of the events' times.

    Attributes:
        leases: The names that this process holds; what it appends is refused once one of them is lost.
    """

    def __init__(self, address: Address, schema: str, *, clock: Clock = system_clock) -> None:
        super().__init__(clock)
        self._address = address
        self._schema = schema
        self._session = Session(address, schema, prepare=self._prepare)
        self.leases = Leases(self._session, address, schema)

    # -- writing

    def append(self, *drafts: Draft, durable: bool = False) -> list[Event]:
        """Write the events together or not at all; see `Ledger.append`.

        Raises:
            Taken: A fire with this key was written down before, or its run was started before.
            Busy: A name that this process holds was taken over by somebody else (`lease-lost`).
            Unreachable: The server does not answer, nor does it come back in time.
        """
        if not drafts:
            return []
        for draft in drafts:
            _check_text(draft)
        events: list[Event] = []

        def write(connection: Connection) -> None:
            with transaction(connection) as execute:
                if events:
                    # The connection was lost the first time: behind the lock nothing of it can arrive any more.
                    execute(LOCK_HEAD)
                    found = execute("SELECT hash FROM events WHERE seq = ?", (events[-1].seq,)).fetchone()
                    if found == (events[-1].hash,):
                        return
                    events.clear()
                self._write(execute, drafts, events)

        self._session.attempt(write, patience=self._address.timeout)
        return events

    def restore(self, events: Iterable[Event]) -> int:
        """Write down a chain that another ledger wrote, as it is; see `SqlLedger.restore`."""
        return super().restore(_check_text(event) for event in events)

    def rebuild(self) -> None:
        """Empty the kept tables and fold them from the events again."""
        self._session.attempt(_nothing)
        at = quoted(self._schema)
        with (
            self._session.own() as connection,
            _scratch() as scratch,
            transaction(connection, piped=False) as execute,
        ):
            execute("SET LOCAL statement_timeout = 0")
            execute(LOCK_HEAD)
            for row in _streamed(connection, ALL_EVENTS):
                folds.apply(scratch, event_of(row))
            folds.drop(execute, at=at)
            folds.create(execute, at=at, dialect=_DIALECT)
            for fold in folds.FOLDS:
                names = ", ".join(fold.columns)
                with connection.cursor().copy(f"COPY {at}.{fold.name} ({names}) FROM STDIN") as copy:
                    for row in scratch(f"SELECT {names} FROM temp.{fold.name}"):  # noqa: S608 - our own names
                        copy.write_row(row)

    # -- reading

    def verify(self) -> list[Fault]:
        """Recompute the chain and every kept table; an empty list means all holds.

        The events are folded on this machine, so that it costs the server one reading.
        """
        self._session.attempt(_nothing)
        # One snapshot for the whole reading, while others go on appending.
        how = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with self._session.own() as connection, _scratch() as scratch:
            with transaction(connection, piped=False, how=how) as execute:
                rows = _streamed(connection, ALL_EVENTS)
                head = execute(READ_HEAD).fetchone()
                faults = [*verified(rows, lambda: head, lambda event: folds.apply(scratch, event))]
                for fold in folds.FOLDS:
                    _copy_kept(connection, execute, fold, scratch)
            return faults + [Fault(0, what) for what in folds.differences(scratch)]

    def made(self) -> bool:
        """Say whether the schema has a ledger; looking makes none."""
        with self._session.own() as connection:
            return self._format(connection) > 0

    def close(self) -> None:
        """Close the connection; the ledger connects again when it is used again."""
        self.leases.close()
        self._session.close()

    # -- inside

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[folds.Execute]:
        with self._session.lock:
            try:
                with transaction(self._session.connection()) as execute:
                    yield execute
            except psycopg.Error as error:
                raise self._session.explained(error) from error

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        sql, values = numbered(sql), cleaned(values)
        return self._session.attempt(
            lambda connection: connection.execute(sql, values).fetchall(), patience=self._address.timeout
        )

    def _newest(self, execute: folds.Execute) -> tuple[int, str]:
        head = execute(LOCK_HEAD)
        passed = self.leases.fence(execute)
        passed()
        found: tuple[int, str] = head.fetchone()
        return found

    def _format(self, connection: Connection) -> int:
        """Return the number of the layout in the schema, 0 if there is none yet.

        Raises:
            UserError: A newer Modelyard made it.
        """
        # Not `to_regclass`: inside a transaction that waited for a lock it answers from before the wait.
        if not connection.execute(_HAS_ABOUT, (self._schema,)).fetchall():
            return 0
        about = f"{quoted(self._schema)}.about"
        found = connection.execute(f"SELECT application, format FROM {about}").fetchone()  # noqa: S608 - quoted
        if found is None or found[0] != "modelyard":
            raise Tampered(
                "ledger-unreadable",
                f"schema `{self._schema}` of `{self._address.shown}` has a table `about` that is not ours",
                hint="choose another with `schema=` in the address",
            )
        if found[1] > _FORMAT:
            raise UserError(
                "ledger-too-new",
                f"schema `{self._schema}` has format {found[1]}, this Modelyard reads up to {_FORMAT}",
                hint="pip install --upgrade modelyard",
            )
        return int(found[1])

    def _prepare(self, connection: Connection) -> None:
        """Make the tables if the schema is new; those who come at once take turns."""
        if self._format(connection):
            return
        at = quoted(self._schema)
        with transaction(connection, piped=False) as execute:
            execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (f"modelyard {self._schema}",))
            if self._format(connection):
                return
            (encoding,) = execute("SHOW server_encoding").fetchone()
            if encoding != "UTF8":
                raise UserError(
                    "store-encoding",
                    f"`{self._address.shown}` keeps text as {encoding}, which cannot hold every text",
                    hint="make a database with `ENCODING 'UTF8'`",
                )
            # Asked first: who may not make a schema may still use one that an administrator made.
            if not execute("SELECT 1 FROM pg_namespace WHERE nspname = ?", (self._schema,)).fetchall():
                execute(f"CREATE SCHEMA {at}")
            for statement in _MADE:
                execute(statement)
            folds.create(execute, at=at, dialect=_DIALECT)


class PostgresStore:
    """The store of a team's project; close it, or use it as a context.

    Args:
        root: Folder of the project on this machine.
        address: See `modelyard.store.address.parse_address`.
        name: Name of the project: its schema where the address names none.
        lease: Seconds without word from a holder after which its name is free, instead of the address's.
        beat: Seconds between two of its words, at most half a lease.
        clock: Source of the time of events; leases go by the clock of the database.

    Raises:
        UserError: The address cannot be used, or the folder cannot be written.
    """

    def __init__(
        self,
        root: Path,
        address: str,
        *,
        name: str = "",
        lease: float = 0.0,
        beat: float = 0.0,
        clock: Clock = system_clock,
    ) -> None:
        found = parse_address(address)
        lease = lease or found.lease
        schema = check_schema(found.schema or name)
        found = replace(found, schema=schema, lease=lease, beat=beat or min(found.beat, lease / 2))
        folder = Path(found.files) if found.files else root / FOLDER
        with explained(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root
        self.address = found.text
        self.ledger = PostgresLedger(found, schema, clock=clock)
        self.blobs = FolderBlobs(folder / "blobs")
        self.tables = DeltaTables(folder / "tables", Locks(folder / "locks", clock=clock))

    def hold(self, name: str, *, who: dict[str, Any]) -> AbstractContextManager[Held]:
        """Hold a name while the context is open; see `Store.hold`. `settle` wants `{"run": RUN_ID}` for `run`."""
        return self.ledger.leases.hold(name, who=who)

    def holder(self, name: str) -> dict[str, Any] | None:
        """Return what the holder of the name says of itself, or none if its lease has ended."""
        return self.ledger.leases.holder(name)

    def made(self) -> bool:
        """Say whether anything was ever stored; looking makes nothing."""
        return self.ledger.made()

    def close(self) -> None:
        """Close the connections."""
        self.ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_text(draft: DraftT) -> DraftT:
    """Return a draft whose names Postgres can keep; a payload is JSON, which can say anything."""
    if "\0" in f"{draft.run}{draft.step}{draft.actor}":
        raise UserError(
            "ledger-text",
            "the name of a run, a step or an actor holds a NUL character, which Postgres cannot keep",
            hint="choose another name",
        )
    return draft


def _nothing(_: Connection) -> None:
    """Connect, and make the tables if there are none."""


@contextmanager
def _scratch() -> Iterator[folds.Execute]:
    """Give a second, empty set of kept tables on this machine: small in memory, large in a file that nobody sees."""
    with closing(sqlite3.connect("", isolation_level=None)) as db:
        db.execute("BEGIN")
        folds.create(db.execute, at="temp")
        yield lambda sql, values=(): db.execute(sql, cleaned(values))


def _streamed(connection: Connection, sql: str) -> Iterator[Row]:
    with psycopg.RawServerCursor(connection, "streamed") as cursor:
        cursor.itersize = 1000
        yield from cursor.execute(sql)


def _copy_kept(connection: Connection, execute: folds.Execute, fold: folds.Fold, scratch: folds.Execute) -> None:
    """Copy a kept table beside the second set; one that cannot be read is left out, and missed later."""
    names = ", ".join(fold.columns)
    marks = ", ".join("?" * len(fold.columns))
    execute("SAVEPOINT kept")
    scratch(f"CREATE TABLE main.{fold.name} AS SELECT * FROM temp.{fold.name} WHERE 0")  # noqa: S608 - our own names
    try:
        for row in _streamed(connection, f"SELECT {names} FROM {fold.name}"):  # noqa: S608 - our own names
            scratch(f"INSERT INTO main.{fold.name} VALUES ({marks})", row)  # noqa: S608 - our own names
    except psycopg.Error:
        execute("ROLLBACK TO SAVEPOINT kept")
        scratch(f"DROP TABLE main.{fold.name}")
