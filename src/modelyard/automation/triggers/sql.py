"""Fire when the rows of a table or a query changed, told by their number, the greatest of a column, or a hash."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelyard._kit.digest import digest_of, short
from modelyard._kit.errors import MissingExtra, ModelyardError, NotFound, UserError, near
from modelyard.automation.triggers.secret import read_secret
from modelyard.automation.triggers.watched import Watched
from modelyard.records import TriggerKind
from modelyard.security.redact import redact
from modelyard.spec.sections.triggers import OwnTrigger, sqlite_file, watched_column
from modelyard.store import Store

__all__ = ["SqlTrigger"]

# A look may take so long; a question that takes longer is too dear to be asked again and again.
_SECONDS = 30.0
# Values longer than that are written down as their digest.
_LONGEST = 64
_SUM = 1 << 128

# Runs one statement; returns the names of the columns, and an iterator over the rows.
_Ask = Callable[[str], tuple[list[str], Iterator[Sequence[Any]]]]


class SqlTrigger(Watched):
    """Watches the rows of a table or a query as a whole, over a connection that only reads.

    Args:
        name: Its name in the file.
        section: What the file says of it.
        root: Folder of the project.
        store: Where its fires are written down.
    """

    kind: TriggerKind = "sql"

    def __init__(self, name: str, section: OwnTrigger, root: Path, store: Store) -> None:
        self._address = str(section.sql)
        self._item = section.table or "query"
        what = section.table or f"query {short(digest_of(section.query))}"
        about = f"{redact(self._address)} {what} {' '.join(section.watch)}"
        super().__init__(name, section, store, about)
        self._root = root

    def _snapshot(self) -> dict[str, str]:
        opened = _sqlite if self._address.startswith("sqlite:") else _postgres
        try:
            with opened(self._address, self.section.password, self._root) as ask:
                return {self._item: self._state(ask)}
        except ModelyardError:
            raise
        except Exception as error:
            if not isinstance(error, sqlite3.Error) and not type(error).__module__.startswith("psycopg"):
                raise
            why = redact(" ".join(str(error).split()))
            raise UserError(
                "trigger-sql-failed",
                f"`{redact(self._address)}` cannot be asked: {why}",
                hint="look at the address, the table and the rights of the user; nothing counts as changed",
            ) from error

    def _state(self, ask: _Ask) -> str:
        source = (
            _quoted_table(self.section.table) if self.section.table else f"({_bare(self.section.query)}) AS watched"
        )
        columns, _ = ask(f"SELECT * FROM {source} LIMIT 0")  # noqa: S608 - quoted, or the user's own query
        watched = {watch: watched_column(watch) for watch in self.section.watch}
        for column in filter(None, watched.values()):
            # SQLite takes a quoted name that it does not know for a text, which never changes.
            if column not in columns:
                raise _no_column(column, self._item, columns)
        asked = [f"max({_quoted(column)})" if column else "count(*)" for column in watched.values()]
        _, rows = ask(f"SELECT {', '.join(asked)} FROM {source}")  # noqa: S608 - quoted, or the user's own query
        state = []
        for watch, value in zip(watched, next(rows), strict=True):
            state.append(f"{watch}={_hash(ask, source) if watch == 'hash' else _text(value)}")
        return " ".join(state)


def _hash(ask: _Ask, source: str) -> str:
    """Return a digest over all rows in whatever order they come, as no table has one."""
    total = 0
    for row in ask(f"SELECT * FROM {source}")[1]:  # noqa: S608 - quoted, or the user's own query
        total += int.from_bytes(hashlib.sha256(repr(tuple(row)).encode("utf-8", "surrogatepass")).digest()[:16], "big")
    return f"{total % _SUM:032x}"


def _text(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes | memoryview) else str(value)
    return text if len(text) <= _LONGEST and text.isprintable() else short(digest_of(text))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted_table(table: str) -> str:
    return ".".join(_quoted(part.strip()) for part in table.split("."))


def _bare(query: str | None) -> str:
    # The line break ends a comment that the query may end in.
    return f"{(query or '').strip().rstrip(';')}\n"


def _no_column(column: str, item: str, columns: Sequence[str]) -> NotFound:
    close = near(column, columns)
    hint = f"did you mean `max({close[0]})`?" if close else f"there is: {', '.join(columns)}"
    return NotFound("trigger-column-not-found", f"`{item}` has no column `{column}`", hint=hint)


@contextmanager
def _sqlite(address: str, password: str | None, root: Path) -> Iterator[_Ask]:
    file = sqlite_file(address, root)
    if not file.is_file():
        # Opened for reading only, it would not be made; the message would not say which file is meant.
        raise NotFound("trigger-database-missing", f"there is no database `{file}`", hint="make it, or mend the path")
    ends = time.monotonic() + _SECONDS
    with closing(
        sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
    ) as db:
        db.execute("PRAGMA query_only = 1")
        db.set_progress_handler(lambda: time.monotonic() > ends, 100_000)
        # One state of the database for all that is asked.
        db.execute("BEGIN")

        def ask(statement: str) -> tuple[list[str], Iterator[Sequence[Any]]]:
            cursor = db.execute(statement)
            return [column[0] for column in cursor.description or ()], iter(cursor)

        yield ask


@contextmanager
def _postgres(address: str, password: str | None, root: Path) -> Iterator[_Ask]:
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra("watching Postgres needs psycopg", extra="postgres") from error
    more = {} if password is None else {"password": read_secret(password, root)}
    with psycopg.connect(
        address,
        connect_timeout=10,
        application_name="modelyard trigger",
        options=f"-c default_transaction_read_only=on -c statement_timeout={int(_SECONDS * 1000)}",
        **more,  # type: ignore[arg-type]
    ) as db:
        db.read_only = True
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

        def ask(statement: str) -> tuple[list[str], Iterator[Sequence[Any]]]:
            # Prepared, so that it can be one statement only.
            cursor = db.cursor()
            cursor.execute(statement.encode(), prepare=True)
            return [column.name for column in cursor.description or ()], iter(cursor)

        yield ask
