"""Read the events of another project without leaving a trace there: no file is made, none is brought up to date."""

from __future__ import annotations

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelyard._kit.errors import MissingExtra, NotFound, Unreachable, UserError
from modelyard.records import Event, EventKind
from modelyard.store.address import Address, parse_address
from modelyard.store.chain import COLUMNS, event_of
from modelyard.store.disk import no_space
from modelyard.store.local import FOLDER, LOCAL
from modelyard.store.opening import VARIABLE, address_of

__all__ = ["Peek", "peek"]

_SECONDS = 10.0
_NO_LIMIT = 1 << 62


class Peek(ABC):
    """The events of one project."""

    @abstractmethod
    def _all(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        """Return the rows of a query, or none where nothing was ever written; `?` stands for a value."""

    def head(self) -> tuple[int, str]:
        """Return sequence number and hash of the newest event; `(0, "")` where there is none."""
        found = self._all("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1", ())
        return (int(found[0][0]), str(found[0][1])) if found else (0, "")

    def hash_at(self, seq: int) -> str:
        """Return the hash of one event; empty where there is no such event."""
        found = self._all("SELECT hash FROM events WHERE seq = ?", (seq,))
        return str(found[0][0]) if found else ""

    def events(self, *, after: int = 0, run: str = "", kinds: Sequence[EventKind] = (), limit: int = 0) -> list[Event]:
        """Return events in order; `limit` 0 means all."""
        where = "e.seq > ?"
        values: tuple[Any, ...] = (after,)
        if run:
            where, values = f"{where} AND e.run = ?", (*values, run)
        if kinds:
            where, values = f"{where} AND e.kind IN ({', '.join('?' * len(kinds))})", (*values, *kinds)
        sql = f"SELECT {COLUMNS} FROM events e WHERE {where} ORDER BY e.seq LIMIT ?"  # noqa: S608 - values are bound
        return [event_of(row) for row in self._all(sql, (*values, limit or _NO_LIMIT))]


class _File(Peek):
    def __init__(self, path: Path) -> None:
        self._path = path

    def _all(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        if not self._path.is_file():
            return []
        wal = self._path.with_name(f"{self._path.name}-wal")
        # Where we may not write, shared memory cannot be made either; without a WAL none is needed.
        still = not os.access(self._path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)
        address = f"file:{quote(str(self._path))}?mode=ro{'&immutable=1' if still else ''}"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=_SECONDS)) as db:
                return db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise no_space(error, self._path) or UserError(
                "upstream-unreadable",
                f"`{self._path}` cannot be read: {error}",
                hint="see whether it is the ledger of a project, and whether you may read it",
            ) from error


class _Schema(Peek):
    def __init__(self, address: Address) -> None:
        self._address = address

    def _all(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            import psycopg
            from psycopg import sql as composed
        except ImportError as error:
            raise MissingExtra("a project in Postgres needs psycopg", extra="postgres") from error
        try:
            with psycopg.connect(
                self._address.url,
                connect_timeout=int(_SECONDS),
                options=f"-c default_transaction_read_only=on -c statement_timeout={int(_SECONDS * 1000)}",
            ) as db:
                db.execute(composed.SQL("SET search_path TO {}").format(composed.Identifier(self._address.schema)))
                if db.execute("SELECT to_regclass('events')").fetchone() == (None,):
                    return []
                return db.execute(sql.replace("?", "%s").encode(), values).fetchall()
        except psycopg.Error as error:
            said = (error.diag.message_primary or str(error)).strip().partition("\n")[0]
            raise Unreachable(
                "store-unreachable",
                f"`{self._address.shown}` cannot be read: {said}",
                hint="see whether the server runs, and whether the role may read that schema",
            ) from error


def peek(project: str, root: Path) -> Peek:
    """Return the events of another project.

    Args:
        project: Its folder, relative to ours, or its name where both keep their records in one Postgres.
        root: Folder of our project.

    Raises:
        NotFound: There is no such folder, and our own records are in no Postgres (`upstream-missing`).
        UserError: The address of a store cannot be used.
    """
    folder = root / Path(project).expanduser()
    if folder.is_dir():
        address, name = address_of(folder)
        if address == LOCAL:
            return _File(folder / FOLDER / "ledger.db")
        found = parse_address(address)
        # What the environment says was said for us: its schema is ours.
        schema = "" if os.environ.get(VARIABLE) else found.schema
        return _Schema(replace(found, schema=schema or name))
    address, _ = address_of(root)
    if address == LOCAL or "/" in project:
        raise NotFound(
            "upstream-missing",
            f"there is no project `{project}`",
            hint="give the folder of the project; a name alone is for projects in one Postgres",
        )
    return _Schema(replace(parse_address(address), schema=project))
