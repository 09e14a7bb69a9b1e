"""A connection to Postgres: made when it is needed, made again when it was lost, never waited for without end.

What goes wrong with it is said without a secret.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, TypeVar

import psycopg  # noqa: TID253 - this module is itself imported where Postgres is used

from modelyard._kit.errors import Busy, Denied, ModelyardError, Tampered, Unreachable, UserError
from modelyard.store.address import Address
from modelyard.store.folds import Execute

__all__ = ["Connection", "Session", "cleaned", "numbered", "quoted", "transaction"]

T = TypeVar("T")
# It reports errors that we raise; without a handler they would stand on the user's screen as well.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# Seconds between two attempts to reach the server, the first and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_CONNECT_SECONDS = 10
# What the server says of itself when it goes away: shutdown, crash, start, and whatever is of the connection.
_GONE = ("08", "57P01", "57P02", "57P03", "57P05", "25P03")


class Connection(psycopg.Connection[Any]):
    """A connection that gives up when the server does not answer: a cable that is cut says nothing by itself."""

    # Seconds for one answer.
    patience = 60.0

    def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
        """Wait for the server, at most `patience` seconds."""
        return super().wait(self._limited(gen), *args, **named)

    def _limited(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        until = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    # Whatever would be done with it later would wait as long again.
                    self.close()
                    raise psycopg.OperationalError(f"no answer for {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value


class Session:
    """One connection a process, shared by its threads one at a time.

    Args:
        address: The server.
        schema: Where unqualified names are looked for.
        answer: Seconds that the server may take for an answer; past them it cancels the statement itself.
        prepare: Called with the first connection of the process, e.g. to make the tables.

    Attributes:
        lock: Held by whoever uses the connection.
        answer: Seconds, as given; the address's `timeout` by default.
    """

    def __init__(
        self,
        address: Address,
        schema: str,
        *,
        answer: float = 0.0,
        prepare: Callable[[Connection], None] | None = None,
    ) -> None:
        self._address = address
        self._schema = schema
        self.answer = answer or address.timeout
        self._prepare = prepare
        self.lock = threading.RLock()
        # A connection must not be used, nor closed, in a forked child: each process has its own.
        self._connections: dict[int, Connection] = {}
        self._reached = False

    def attempt(self, work: Callable[[Connection], T], *, patience: float = 0.0) -> T:
        """Do some work on the connection; where it is lost, do it again on a new one.

        Args:
            work: What to do; it may be done twice, so it must see what the first time has left.
            patience: Seconds for which a lost server is looked for. One that was never reached is not looked for.

        Raises:
            Unreachable: It does not come back.
            ModelyardError: As `explained` says.
        """
        until, pause, lost = time.monotonic() + patience, _FIRST_PAUSE, False
        while True:
            with self.lock:
                held = os.getpid() in self._connections
                try:
                    return work(self.connection())
                except psycopg.Error as error:
                    if not self._is_gone(error):
                        raise self.explained(error) from error
                    self.close()
                    # A server that was restarted has cut a connection that nobody used: that alone is no error.
                    again = (held and not lost) or (self._reached and time.monotonic() < until)
                    if not again:
                        raise self.explained(error) from error
                    lost = True
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    def connection(self) -> Connection:
        """Return this process's connection, made if there is none."""
        pid = os.getpid()
        found = self._connections.get(pid)
        if found is None or found.closed:
            found = self.connect()
            try:
                if not self._reached and self._prepare is not None:
                    self._prepare(found)
            except BaseException:
                found.close()
                raise
            self._reached = True
            self._connections[pid] = found
        return found

    def connect(self) -> Connection:
        """Return a new connection, set up for this project; whoever asks for it closes it."""
        given: dict[str, Any] = {"fallback_application_name": "modelyard"}
        if "connect_timeout=" not in self._address.url:
            given["connect_timeout"] = max(2, min(_CONNECT_SECONDS, int(self.answer)))
        connection = Connection.connect(
            self._address.url,
            autocommit=True,
            cursor_factory=psycopg.RawCursor,
            client_encoding="utf8",
            **given,
        )
        # The server gives up first, and says why; we only when it cannot be heard.
        connection.patience = self.answer * 1.25 + 0.5
        limit = int(self.answer * 1000)
        settings = {
            "search_path": quoted(self._schema),
            # The shorter one speaks first, and knows more.
            "lock_timeout": f"{limit * 9 // 10}ms",
            "statement_timeout": f"{limit}ms",
            # Whoever is cut off in the middle of an append must not stop the others until a lease has ended.
            "idle_in_transaction_session_timeout": f"{int(self._address.lease * 500)}ms",
            "default_transaction_isolation": "read committed",
        }
        calls = ", ".join(f"set_config('{name}', ${i}, false)" for i, name in enumerate(settings, 1))
        connection.execute(f"SELECT {calls}", list(settings.values()))
        return connection

    @contextmanager
    def own(self) -> Iterator[Connection]:
        """Open another connection for one long work, and close it after; see `explained` for what it raises."""
        try:
            with closing(self.connect()) as connection:
                yield connection
        except psycopg.Error as error:
            raise self.explained(error) from error

    def close(self) -> None:
        """Close this process's connection, if there is one; the next use makes another."""
        with self.lock:
            found = self._connections.pop(os.getpid(), None)
            if found is not None:
                found.close()

    def _is_gone(self, error: psycopg.Error) -> bool:
        state = error.sqlstate or ""
        if state:
            return state.startswith(_GONE)
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and _refused(error) is None

    def explained(self, error: psycopg.Error) -> ModelyardError:
        """Return the error to show for what Postgres or the connection said."""
        said = _first_line(error)
        where = self._address.shown
        if not error.sqlstate:
            return _refused(error, where) or Unreachable(
                "store-unreachable",
                f"`{where}` cannot be reached: {said}",
                hint="see whether the server runs and the network reaches it; what was recorded is kept",
            )
        match error.sqlstate:
            case state if state.startswith(_GONE):
                return Unreachable(
                    "store-unreachable", f"`{where}` has gone away: {said}", hint="try again when it is back"
                )
            case "55P03" | "40P01" | "40001":
                return Busy("ledger-locked", f"another process is writing `{where}`", hint="try again when it is done")
            case "57014":
                return Busy(
                    "store-slow",
                    f"`{where}` did not answer within {self.answer:g} s",
                    hint="see what the server is busy with, or allow it more: `timeout=60s` in the address",
                )
            case "53300":
                return Busy("store-full", f"`{where}` takes no more connections", hint="raise its `max_connections`")
            case "53100":
                return UserError(
                    "disk-full",
                    f"no space left on the disk of `{where}`",
                    hint="free some space, then run the same command again",
                )
            case "42501" | "25006":
                return UserError(
                    "store-not-writable",
                    f"schema `{self._schema}` of `{where}` cannot be written: {said}",
                    hint="docs/guides/team.md says which rights the role needs",
                )
            case "23505":
                return Tampered(
                    "ledger-changed",
                    f"the events in `{where}` do not fit the chain: {said}",
                    hint="`modelyard verify --ledger` names what was changed",
                )
            case "42P01" | "42703" | "3F000" | "42P07":
                return Tampered(
                    "ledger-unreadable",
                    f"schema `{self._schema}` of `{where}` is not a ledger that can be read: {said}",
                    hint="put back a copy, or choose another with `schema=` in the address",
                )
        return UserError(
            "store-refused", f"`{where}` refused what was asked: {said}", hint="see the server's log for the reason"
        )


@contextmanager
def transaction(connection: Connection, *, piped: bool = True, how: str = "") -> Iterator[Execute]:
    """Open a transaction: all of it or nothing.

    Args:
        connection: Where.
        piped: Send statements without waiting for the ones before; an error shows at the next result or at the end.
        how: What follows `BEGIN`.

    Yields:
        `execute(sql, values)`, with `?` for a value.
    """

    def execute(sql: str, values: tuple[Any, ...] = ()) -> Any:
        return connection.execute(numbered(sql), cleaned(values))

    try:
        with connection.pipeline() if piped else nullcontext():
            connection.execute(f"BEGIN {how}")
            yield execute
            connection.execute("COMMIT")
    except BaseException:
        # Half a transaction must not meet the next one; what cannot be undone is left to the server.
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.close()
        raise


def _first_line(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error)
    return text.strip().partition("\n")[0]


def _refused(error: psycopg.Error, where: str = "") -> ModelyardError | None:
    """Return what a server meant that answered and let nobody in; it says so only in words."""
    said = str(error)
    if "connection to server" not in said and "connection is bad" not in said:
        return None
    if "password" in said or "pg_hba.conf" in said or ("role" in said and "not exist" in said):
        return Denied(
            "store-denied",
            f"`{where}` lets nobody in: {_reason(said)}",
            hint="give the password as PGPASSWORD or in a password file, and see the rights in docs/guides/team.md",
        )
    if "database" in said and "not exist" in said:
        return UserError(
            "store-address", f"`{where}` has no such database", hint="make it, or name another in the address"
        )
    if "too many" in said or "remaining connection slots" in said:
        return Busy("store-full", f"`{where}` takes no more connections", hint="raise its `max_connections`")
    return None


def _reason(said: str) -> str:
    """Return what the server said, without the address before it."""
    return said.strip().partition("\n")[0].rpartition("FATAL:")[2].strip()


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


@cache
def numbered(sql: str) -> str:
    """Return SQL with `$1`, `$2`, ... for each `?`, as Postgres wants it."""
    first, *rest = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


def cleaned(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return values that Postgres can keep as text: for a NUL character stands its picture."""
    if any(type(value) is str and "\0" in value for value in values):
        return tuple(value.replace("\0", "\u2400") if type(value) is str else value for value in values)
    return values
