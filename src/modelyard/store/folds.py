"""The kept tables that speed up reading: each a small declared fold of the events.

A fold keeps where to look and what lists show; the events keep the content. Every fold is updated in the
transaction that appends an event, and can be dropped and made again from the events at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard._kit.errors import Taken
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
        "INSERT INTO runs (seq, id, project, actor, plan, started, ended, status, reason, result, fire, trace)"
        " VALUES (?, ?, ?, ?, ?, ?, 0, 'running', '', '', ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, project = excluded.project, actor = excluded.actor,"
        " plan = excluded.plan, started = excluded.started, ended = 0, status = 'running', reason = '', result = '',"
        " fire = excluded.fire, trace = excluded.trace",
        (
            event.seq,
            event.run,
            body["project"],
            event.actor,
            body.get("plan", ""),
            event.time,
            body.get("fire", ""),
            body.get("trace", ""),
        ),
    )
    if fire := body.get("fire", ""):
        taken = execute(
            "UPDATE fires SET state = 'started', run = ? WHERE id = ? AND state = 'queued' RETURNING id",
            (event.run, fire),
        ).fetchall()
        if not taken:
            raise Taken("fire-taken", f"fire `{fire}` was run already", hint="leave it to the run that has it")


def _run_finished(execute: Execute, event: Event) -> None:
    body = event.payload
    execute(
        "UPDATE runs SET ended = ?, status = ?, reason = ?, result = ? WHERE id = ?",
        (event.time, body["status"], body.get("reason", ""), body.get("result", ""), event.run),
    )
    # A run whose process died leaves its fire in the queue: the next run goes on with it.
    state = "queued" if body["status"] == "interrupted" else body["status"]
    execute(
        "UPDATE fires SET state = ?, why = ? WHERE run = ? AND state = 'started'",
        (state, body.get("reason", ""), event.run),
    )


def _fire(execute: Execute, event: Event, state: str) -> None:
    body = event.payload
    new = execute(
        "INSERT INTO fires (key, id, trigger, seq, due, not_before, state, run, why)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (key) DO NOTHING RETURNING id",
        (
            body["key"],
            body["id"],
            body["trigger"],
            event.seq,
            body["due"],
            body.get("not_before", 0.0),
            state,
            body.get("why", ""),
        ),
    ).fetchall()
    if not new:
        raise Taken("fire-taken", f"`{body['key']}` was written down already", hint="leave it to the first one")
    _seen(execute, event)


def _fire_queued(execute: Execute, event: Event) -> None:
    _fire(execute, event, "queued")


def _fire_dropped(execute: Execute, event: Event) -> None:
    if event.payload.get("queued"):
        # It stood in the queue already and will not run any more.
        left = execute(
            "UPDATE fires SET state = 'dropped', why = ? WHERE id = ? AND state = 'queued' RETURNING id",
            (event.payload["why"], event.payload["id"]),
        ).fetchall()
        if not left:
            raise Taken("fire-taken", f"fire `{event.payload['id']}` is not queued", hint="look at its run")
    else:
        _fire(execute, event, "dropped")


def _seen(execute: Execute, event: Event) -> None:
    for name, version in event.payload.get("seen", {}).items():
        if version:
            execute(
                "INSERT INTO seen (trigger, item, version) VALUES (?, ?, ?)"
                " ON CONFLICT (trigger, item) DO UPDATE SET version = excluded.version",
                (event.payload["trigger"], name, version),
            )
        else:
            execute("DELETE FROM seen WHERE trigger = ? AND item = ?", (event.payload["trigger"], name))


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
            started REAL, ended REAL, status TEXT, reason TEXT, result TEXT, fire TEXT, trace TEXT)""",
        ),
        label="id",
        apply={"run.started": _run_started, "run.finished": _run_finished},
    ),
    Fold(
        name="fires",
        create=(
            """CREATE TABLE {at}.fires (key TEXT PRIMARY KEY, id TEXT UNIQUE, trigger TEXT, seq INTEGER, due REAL,
            not_before REAL, state TEXT, run TEXT, why TEXT) WITHOUT ROWID""",
            "CREATE INDEX {at}.fires_by_state ON fires (state, seq)",
            "CREATE INDEX {at}.fires_by_trigger ON fires (trigger, seq)",
            "CREATE INDEX {at}.fires_by_run ON fires (run)",
        ),
        label="id",
        apply={"fire.queued": _fire_queued, "fire.dropped": _fire_dropped},
    ),
    Fold(
        name="seen",
        create=(
            "CREATE TABLE {at}.seen (trigger TEXT, item TEXT, version TEXT, PRIMARY KEY (trigger, item)) WITHOUT ROWID",
        ),
        label="item",
        apply={"trigger.seen": _seen},
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
