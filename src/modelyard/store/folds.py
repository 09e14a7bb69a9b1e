"""The kept tables that speed up reading: each a small declared fold of the events.

A fold keeps where to look and what lists show; the events keep the content. Every fold is updated in the
transaction that appends an event, and can be dropped and made again from the events at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.records import Event, EventKind

__all__ = ["FOLDS", "Execute", "Fold", "apply", "create", "differences", "drop"]

# `execute(sql, parameters)` of a connection.
Execute = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Fold:
    """One kept table.

    Attributes:
        name: Name of the table.
        create: Statements that make it; `{at}` stands for the database it is made in.
        label: Column that names a row to a person.
        apply: What each kind of event does to it.
    """

    name: str
    create: tuple[str, ...]
    label: str
    apply: Mapping[EventKind, Callable[[Execute, Event], object]]


def _step_finished(execute: Execute, event: Event) -> None:
    execute(
        "INSERT INTO steps (key, step, seq, used) VALUES (?1, ?2, ?3, ?3)"
        " ON CONFLICT (key) DO UPDATE SET step = excluded.step, seq = excluded.seq, used = excluded.used",
        (event.payload["key"], event.step, event.seq),
    )


def _step_cached(execute: Execute, event: Event) -> None:
    # The finished step stays the one that answers for the key; the use makes it the newest of its name.
    execute(
        "INSERT INTO steps (key, step, seq, used) VALUES (?1, ?2, ?3, ?3)"
        " ON CONFLICT (key) DO UPDATE SET used = excluded.used",
        (event.payload["key"], event.step, event.seq),
    )


def _run_started(execute: Execute, event: Event) -> None:
    body = event.payload
    execute(
        "INSERT OR REPLACE INTO runs (seq, id, project, actor, plan, started, ended, status, reason, result)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, 'running', '', '')",
        (event.seq, event.run, body["project"], event.actor, body.get("plan", ""), event.time),
    )


def _run_finished(execute: Execute, event: Event) -> None:
    body = event.payload
    execute(
        "UPDATE runs SET ended = ?, status = ?, reason = ?, result = ? WHERE id = ?",
        (event.time, body["status"], body.get("reason", ""), body.get("result", ""), event.run),
    )


def _alias_moved(execute: Execute, event: Event) -> None:
    to = event.payload["deployment"]
    execute("INSERT INTO aliases (seq, endpoint, alias) VALUES (?, ?, ?)", (event.seq, to["endpoint"], to["alias"]))


FOLDS = (
    Fold(
        name="steps",
        create=(
            "CREATE TABLE {at}.steps (key TEXT PRIMARY KEY, step TEXT, seq INTEGER, used INTEGER) WITHOUT ROWID",
            "CREATE INDEX {at}.steps_by_name ON steps (step, used)",
        ),
        label="step",
        apply={"step.finished": _step_finished, "step.cached": _step_cached},
    ),
    Fold(
        name="runs",
        create=(
            """CREATE TABLE {at}.runs (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, project TEXT, actor TEXT, plan TEXT,
            started REAL, ended REAL, status TEXT, reason TEXT, result TEXT)""",
        ),
        label="id",
        apply={"run.started": _run_started, "run.finished": _run_finished},
    ),
    Fold(
        name="aliases",
        create=(
            "CREATE TABLE {at}.aliases (seq INTEGER PRIMARY KEY, endpoint TEXT, alias TEXT)",
            "CREATE INDEX {at}.aliases_by_name ON aliases (endpoint, alias)",
        ),
        label="endpoint",
        apply={"alias.moved": _alias_moved},
    ),
)

_BY_KIND: dict[str, tuple[Callable[[Execute, Event], object], ...]] = {
    kind: tuple(f.apply[kind] for f in FOLDS if kind in f.apply) for fold in FOLDS for kind in fold.apply
}


def apply(execute: Execute, event: Event) -> None:
    """Update every fold with one event.

    Raises:
        KeyError: The payload lacks what its kind must carry.
    """
    for change in _BY_KIND.get(event.kind, ()):
        change(execute, event)


def create(execute: Execute, *, at: str = "main") -> None:
    """Make the empty kept tables in the database `at` (`main`, or `temp` for a second set beside it)."""
    for fold in FOLDS:
        for statement in fold.create:
            execute(statement.format(at=at))


def drop(execute: Execute, *, at: str = "main") -> None:
    """Drop the kept tables of the database `at`."""
    for fold in FOLDS:
        execute(f"DROP TABLE IF EXISTS {at}.{fold.name}")


def differences(execute: Execute) -> Iterable[str]:
    """Compare the kept tables with a second set in `temp` that was made from the events, and say what differs.

    Yields:
        One sentence a row: "kept table `runs`, row `run-1`: `status` is `succeeded`, the events say `failed`".
    """
    for fold in FOLDS:
        try:
            kept = _rows_beyond(execute, fold, "main", "temp")
        except sqlite3.OperationalError as error:
            yield f"kept table `{fold.name}` cannot be read: {error}"
            continue
        told = _rows_beyond(execute, fold, "temp", "main")
        for first in sorted(kept.keys() | told.keys(), key=str):
            yield f"kept table `{fold.name}`, {_difference(fold, kept.get(first), told.get(first))}"


def _rows_beyond(execute: Execute, fold: Fold, here: str, there: str) -> dict[Any, dict[str, Any]]:
    found = execute(f"SELECT * FROM {here}.{fold.name} EXCEPT SELECT * FROM {there}.{fold.name}")  # noqa: S608 - our own names
    names = [column[0] for column in found.description]
    return {row[0]: dict(zip(names, row, strict=True)) for row in found}


def _difference(fold: Fold, kept: dict[str, Any] | None, told: dict[str, Any] | None) -> str:
    row = f"row `{(kept or told or {}).get(fold.label)}`"
    if kept is None:
        return f"{row}: missing, the events have it"
    if told is None:
        return f"{row}: no event made it"
    what = [f"`{n}` is `{kept.get(n)}`, the events say `{told[n]}`" for n in told if kept.get(n) != told[n]]
    return f"{row}: {'; '.join(what)}"
