"""What every ledger that speaks SQL does alike: write the chain, fold it, read it.

A dialect of it opens the database and says how a transaction is made (`ledger.py` for SQLite, `postgres.py`). SQL is
written here once, with `?` for a value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from modelyard._kit.clock import Clock
from modelyard._kit.digest import canonical
from modelyard._kit.errors import NotFound, Tampered, UserError
from modelyard.records import (
    Alert,
    AlertState,
    Deployment,
    Draft,
    Event,
    EventKind,
    Fire,
    FireState,
    Run,
    StepRun,
    alert_of,
    fire_of,
    fold_run,
    step_run,
)
from modelyard.store import folds
from modelyard.store.base import Fault
from modelyard.store.chain import COLUMNS, Row, event_of, link, linked, row_of

__all__ = ["ALL_EVENTS", "INSERT", "READ_HEAD", "SqlLedger"]

# What no list reaches: SQLite and Postgres say "no limit" in different ways.
_NO_LIMIT = 1 << 62
_PAGE = 1000

# What came to the trigger of a fire between it and its run: the ledger lets nothing join it from there on.
_SINCE = """f.trigger = (SELECT o.trigger FROM fires o WHERE o.id = ?)
    AND f.seq > (SELECT o.seq FROM fires o WHERE o.id = ?)
    AND f.seq < coalesce((SELECT r.seq FROM fires o JOIN runs r ON r.id = o.run WHERE o.id = ?), ?)"""

# How an alert stands, beyond what the event says that wrote it down.
_STANDING = ("state", "attempt", "next", "ended", "error", "acked", "open")
_RUN_COLUMNS = "id, project, status, started, ended, actor, plan, reason, result, fire, trace"
INSERT = "INSERT INTO events (seq, time, run, step, kind, actor, payload, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
READ_HEAD = "SELECT seq, hash FROM head WHERE one = 1"
_WRITE_HEAD = "UPDATE head SET seq = ?, hash = ? WHERE one = 1"
ALL_EVENTS = f"SELECT {COLUMNS} FROM events e ORDER BY e.seq"  # noqa: S608 - our own names


class SqlLedger(ABC):
    """Events and kept tables in a database.

    Args:
        clock: Source of the events' times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    # -- what a dialect gives

    @abstractmethod
    def _transaction(self, *, durable: bool = False) -> AbstractContextManager[folds.Execute]:
        """Open a transaction for writing that nobody else writes beside."""

    @abstractmethod
    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return the rows of a query."""

    @abstractmethod
    def verify(self) -> list[Fault]:
        """Recompute the chain and every kept table; an empty list means all holds."""

    @abstractmethod
    def rebuild(self) -> None:
        """Empty the kept tables and fold them from the events again."""

    # -- writing

    def append(self, *drafts: Draft, durable: bool = False) -> list[Event]:
        """Write the events together or not at all; see `Ledger.append`."""
        if not drafts:
            return []
        events: list[Event] = []
        with self._transaction(durable=durable) as execute:
            self._write(execute, drafts, events)
        return events

    def restore(self, events: Iterable[Event]) -> int:
        """Write down a chain that another ledger wrote, as it is: with its numbers, times and hashes.

        Args:
            events: All of them, in order, e.g. `other.events()`.

        Returns:
            How many.

        Raises:
            UserError: This ledger has events already.
            Tampered: An event does not fit the one before it; nothing is written.
        """
        with self._transaction(durable=True) as execute:
            seq, last = self._newest(execute)
            if seq:
                raise UserError(
                    "ledger-not-empty",
                    f"the ledger has {seq} events already",
                    hint="restore into an empty one, e.g. another schema",
                )
            for event in events:
                row = row_of(event)
                if event.seq != seq + 1 or linked(row, last) != event.hash:
                    raise Tampered(
                        "ledger-changed",
                        f"event {event.seq} does not fit the one before it",
                        hint="`modelyard verify --ledger` names what was changed",
                    )
                execute(INSERT, row)
                folds.apply(execute, event)
                seq, last = event.seq, event.hash
            execute(_WRITE_HEAD, (seq, last))
        return int(seq)

    def _newest(self, execute: folds.Execute) -> tuple[int, str]:
        """Return number and hash of the newest event, for whoever is about to write behind it."""
        found: tuple[int, str] = execute(READ_HEAD).fetchone()
        return found

    def _write(self, execute: folds.Execute, drafts: Sequence[Draft], events: list[Event]) -> None:
        """Write drafts behind the head, and note what they became in `events`."""
        seq, last = self._newest(execute)
        for draft in drafts:
            seq += 1
            time = float(self._clock())
            body = canonical(draft.payload)
            last = link(last, seq, time, draft.run, draft.step, draft.kind, draft.actor, body)
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
            execute(INSERT, row)
            folds.apply(execute, event)
            events.append(event)
        execute(_WRITE_HEAD, (seq, last))

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
        sql = f"SELECT {COLUMNS} FROM events e WHERE {where} ORDER BY e.seq LIMIT ?"  # noqa: S608 - values are bound
        left = limit or -1
        while left:
            # Page by page: a cursor left open would hold back the WAL and block this process's own appends.
            size = min(left, _PAGE) if limit else _PAGE
            page = self._all(sql, (after, *given, size))
            yield from (event_of(row) for row in page)
            if len(page) < size:
                return
            after = page[-1][0]
            left -= len(page) if limit else 0

    def head(self) -> tuple[int, str]:
        """Return sequence number and hash of the newest event; `(0, "")` for an empty ledger."""
        seq, last = self._all(READ_HEAD)[0]
        return seq, last

    def output(self, key: str) -> StepRun | None:
        """Return the finished step with this output key, or none."""
        return self._step(f"SELECT {COLUMNS} FROM steps s JOIN events e ON e.seq = s.seq WHERE s.key = ?", key)  # noqa: S608

    def latest(self, step: str) -> StepRun | None:
        """Return the newest finished step of this name in any run, or none.

        A cached step counts as its finished one, done again at the time of its use.
        """
        return self._step(
            f"SELECT {COLUMNS} FROM steps s JOIN events e ON e.seq = s.seq"  # noqa: S608 - our own names
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
        limit = limit or _NO_LIMIT
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
        tail = f"ORDER BY f.seq {'DESC' if newest else 'ASC'} LIMIT {int(limit) or _NO_LIMIT}"
        return self._fires(where, given, tail)

    def joined(self, fire_id: str) -> list[Fire]:
        """Return the fires that joined one, in the order in which they came; see `Ledger.joined`."""
        given = (fire_id, fire_id, fire_id, _NO_LIMIT)
        return [fire for fire in self._fires(_SINCE, given, "ORDER BY f.seq") if fire.joined == fire_id]

    def seen(self, trigger: str) -> dict[str, str]:
        """Return the state of the world that a trigger has fired for: name of an item -> its version."""
        return dict(self._all("SELECT item, version FROM seen WHERE trigger = ?", (trigger,)))

    def alert(self, alert_id: str) -> Alert | None:
        """Return one alert as it stands, or none."""
        found = self._alerts("a.id = ?", (alert_id,), "LIMIT 1")
        return found[0] if found else None

    def alerts(
        self,
        *,
        target: str = "",
        states: Sequence[AlertState] = (),
        open_only: bool = False,
        newest: bool = False,
        limit: int = 0,
    ) -> list[Alert]:
        """Return alerts in the order in which they were written down, or the newest first; see `Ledger.alerts`."""
        where = "a.open = 1" if open_only else "1 = 1"
        given: tuple[str, ...] = ()
        if target:
            where, given = f"{where} AND a.target = ?", (*given, target)
        if states:
            where, given = f"{where} AND a.state IN ({', '.join('?' * len(states))})", (*given, *states)
        tail = f"ORDER BY a.seq {'DESC' if newest else 'ASC'} LIMIT {int(limit) or _NO_LIMIT}"
        return self._alerts(where, given, tail)

    def alias(self, endpoint: str, alias: str) -> Deployment | None:
        """Return where the alias points now, or none."""
        rows = self._all(
            f"SELECT {COLUMNS} FROM aliases a JOIN events e ON e.seq = a.seq"  # noqa: S608 - our own names
            " WHERE a.endpoint = ? AND a.alias = ? ORDER BY a.seq DESC LIMIT 1",
            (endpoint, alias),
        )
        return _deployment(rows[0]) if rows else None

    def aliases(self, endpoint: str = "") -> list[Deployment]:
        """Return every move of every alias (of one endpoint), oldest first."""
        where = "WHERE a.endpoint = ?" if endpoint else ""
        rows = self._all(
            f"SELECT {COLUMNS} FROM aliases a JOIN events e ON e.seq = a.seq {where} ORDER BY a.seq",  # noqa: S608 - our own names
            (endpoint,) if endpoint else (),
        )
        return [_deployment(row) for row in rows]

    def _fires(self, where: str, given: tuple[str | int, ...], tail: str) -> list[Fire]:
        sql = (
            f"SELECT {COLUMNS}, f.state, f.run, f.why FROM fires f JOIN events e ON e.seq = f.seq WHERE {where} {tail}"  # noqa: S608
        )
        return [fire_of(event_of(row[:-3]), state=row[-3], run=row[-2], why=row[-1]) for row in self._all(sql, given)]

    def _alerts(self, where: str, given: tuple[str, ...], tail: str) -> list[Alert]:
        standing = ", ".join(f"a.{name}" for name in _STANDING)
        sql = f"SELECT {COLUMNS}, {standing} FROM alerts a JOIN events e ON e.seq = a.seq WHERE {where} {tail}"  # noqa: S608
        cut = -len(_STANDING)
        rows = ((event_of(row[:cut]), dict(zip(_STANDING, row[cut:], strict=True))) for row in self._all(sql, given))
        return [alert_of(event, **{**now, "open": bool(now["open"])}) for event, now in rows]

    def _step(self, sql: str, value: str) -> StepRun | None:
        rows = self._all(sql, (value,))
        return step_run(event_of(rows[0])) if rows else None


def _run(row: Row) -> Run:
    return Run(**dict(zip(_RUN_COLUMNS.split(", "), row, strict=True)))


def _deployment(row: Row) -> Deployment:
    return msgspec.convert(event_of(row).payload["deployment"], Deployment)
