"""The kept tables that speed up reading: each a small declared fold of the events.

A fold keeps where to look and what lists show; the events keep the content. Every fold is updated in the
transaction that appends an event, and can be dropped and made again from the events at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard._kit.errors import Taken
from modelyard.records import Event, EventKind

__all__ = ["ALERTS", "FOLDS", "SQLITE", "Dialect", "Execute", "Fold", "apply", "create", "differences", "drop"]

# `execute(sql, parameters)` of a connection; a value stands in the SQL as `?`.
Execute = Callable[..., Any]

# Under this name `seen` keeps how far alerts were read, by target; no trigger can have it.
ALERTS = "@alerts"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database says what every one of them can do.

    Attributes:
        words: Placeholder in a column -> the database's word: `int` (64 bits), `real` (a double).
        table: Statement that makes a table, with `{at}`, `{name}` and `{columns}`.
        index: Statement that makes an index, with `{at}`, `{name}`, `{table}` and `{columns}`.
        by_key: What follows where rows are kept in the order of a key that is no number.
    """

    words: Mapping[str, str]
    table: str
    index: str
    by_key: str = ""


SQLITE = Dialect(
    words={"int": "INTEGER", "real": "REAL"},
    table="CREATE TABLE {at}.{name} ({columns})",
    index="CREATE INDEX {at}.{name} ON {table} ({columns})",
    by_key=" WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class Fold:
    """One kept table.

    Attributes:
        name: Name of the table.
        columns: Name of a column -> its type and what it holds itself to; types stand as `{int}` and `{real}`.
        label: Column that names a row to a person.
        apply: What each kind of event does to it.
        indexes: Name of an index -> its columns.
        key: Columns of a primary key of several.
    """

    name: str
    columns: Mapping[str, str]
    label: str
    apply: Mapping[EventKind, Callable[[Execute, Event], object]]
    indexes: Mapping[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()


def _step_finished(execute: Execute, event: Event) -> None:
    execute(
        "INSERT INTO steps (key, step, seq, used) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET step = excluded.step, seq = excluded.seq, used = excluded.used",
        (event.payload["key"], event.step, event.seq, event.seq),
    )


def _step_cached(execute: Execute, event: Event) -> None:
    # The finished step stays the one that answers for the key; the use makes it the newest of its name.
    execute(
        "INSERT INTO steps (key, step, seq, used) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (key) DO UPDATE SET used = excluded.used",
        (event.payload["key"], event.step, event.seq, event.seq),
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
        return
    if fire := event.payload.get("joined", ""):
        # A run that has begun has been told what it stands for.
        waits = execute("SELECT id FROM fires WHERE id = ? AND state = 'queued' AND run = ''", (fire,)).fetchall()
        if not waits:
            raise Taken("fire-taken", f"fire `{fire}` waits no longer", hint="write down one of its own")
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


def _alert_queued(execute: Execute, event: Event) -> None:
    body = event.payload
    # What is told of a trouble again stands for what was told of it before.
    execute("UPDATE alerts SET open = 0 WHERE target = ? AND key = ? AND open = 1", (body["target"], body["key"]))
    new = execute(
        "INSERT INTO alerts (id, seq, target, key, state, at, due, attempt, next, ended, error, acked, open)"
        " VALUES (?, ?, ?, ?, 'waiting', ?, ?, 0, 0, 0, '', '', ?) ON CONFLICT (id) DO NOTHING RETURNING id",
        (body["id"], event.seq, body["target"], body["key"], body["at"], body["due"], int(body["open"])),
    ).fetchall()
    if not new:
        raise Taken("alert-taken", f"alert `{body['id']}` was written down already", hint="leave it to the first one")


def _alert_sent(execute: Execute, event: Event) -> None:
    for alert in event.payload["ids"]:
        sql = "UPDATE alerts SET state = 'sent', ended = ? WHERE id = ? AND state = 'waiting'"
        execute(sql, (event.time, alert))


def _alert_failed(execute: Execute, event: Event) -> None:
    body = event.payload
    state, ended = ("waiting", 0.0) if body["next"] else ("failed", event.time)
    for alert in body["ids"]:
        execute(
            "UPDATE alerts SET state = ?, attempt = ?, next = ?, ended = ?, error = ?"
            " WHERE id = ? AND state = 'waiting'",
            (state, body["attempt"], body["next"], ended, body["error"], alert),
        )


def _alert_closed(execute: Execute, event: Event) -> None:
    for key in event.payload["keys"]:
        # A trouble that came after what ended the one before it goes on.
        execute("UPDATE alerts SET open = 0 WHERE key = ? AND at <= ? AND open = 1", (key, event.payload["at"]))


def _alert_acked(execute: Execute, event: Event) -> None:
    execute("UPDATE alerts SET acked = ? WHERE id = ?", (event.actor, event.payload["id"]))


def _alert_read(execute: Execute, event: Event) -> None:
    for target, upto in event.payload["upto"].items():
        execute(
            "INSERT INTO seen (trigger, item, version) VALUES (?, ?, ?)"
            " ON CONFLICT (trigger, item) DO UPDATE SET version = excluded.version",
            (ALERTS, target, str(upto)),
        )


def _text(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "TEXT")


FOLDS = (
    Fold(
        name="steps",
        columns={"key": "TEXT PRIMARY KEY", "step": "TEXT", "seq": "{int}", "used": "{int}"},
        indexes={"steps_by_name": "step, used"},
        label="step",
        apply={"step.finished": _step_finished, "step.cached": _step_cached},
    ),
    Fold(
        name="runs",
        columns={
            "seq": "{int} PRIMARY KEY",
            "id": "TEXT UNIQUE",
            **_text("project", "actor", "plan"),
            "started": "{real}",
            "ended": "{real}",
            **_text("status", "reason", "result", "fire", "trace"),
        },
        label="id",
        apply={"run.started": _run_started, "run.finished": _run_finished},
    ),
    Fold(
        name="fires",
        columns={
            "key": "TEXT PRIMARY KEY",
            "id": "TEXT UNIQUE",
            "trigger": "TEXT",
            "seq": "{int}",
            "due": "{real}",
            "not_before": "{real}",
            **_text("state", "run", "why"),
        },
        indexes={"fires_by_state": "state, seq", "fires_by_trigger": "trigger, seq", "fires_by_run": "run"},
        label="id",
        apply={"fire.queued": _fire_queued, "fire.dropped": _fire_dropped},
    ),
    Fold(
        name="seen",
        columns=_text("trigger", "item", "version"),
        key=("trigger", "item"),
        label="item",
        apply={"trigger.seen": _seen, "alert.read": _alert_read},
    ),
    Fold(
        name="aliases",
        columns={"seq": "{int} PRIMARY KEY", **_text("endpoint", "alias")},
        indexes={"aliases_by_name": "endpoint, alias"},
        label="endpoint",
        apply={"alias.moved": _alias_moved},
    ),
    Fold(
        name="alerts",
        columns={
            "id": "TEXT PRIMARY KEY",
            "seq": "{int}",
            **_text("target", "key", "state"),
            "at": "{real}",
            "due": "{real}",
            "attempt": "{int}",
            "next": "{real}",
            "ended": "{real}",
            **_text("error", "acked"),
            "open": "{int}",
        },
        indexes={"alerts_by_state": "state, seq", "alerts_by_open": "open, target, key", "alerts_by_seq": "seq"},
        label="id",
        apply={
            "alert.queued": _alert_queued,
            "alert.sent": _alert_sent,
            "alert.failed": _alert_failed,
            "alert.closed": _alert_closed,
            "alert.acked": _alert_acked,
        },
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


def create(execute: Execute, *, at: str = "main", dialect: Dialect = SQLITE) -> None:
    """Make the empty kept tables.

    Args:
        execute: Of a connection.
        at: Database (`main`, or `temp` for a second set beside it) or schema, quoted where it needs to be.
        dialect: How the database says it.
    """
    for fold in FOLDS:
        lines = [f"{name} {what.format_map(dialect.words)}" for name, what in fold.columns.items()]
        if fold.key:
            lines.append(f"PRIMARY KEY ({', '.join(fold.key)})")
        by_number = "{int} PRIMARY KEY" in fold.columns.values()
        made = dialect.table.format(at=at, name=fold.name, columns=", ".join(lines))
        execute(made if by_number else made + dialect.by_key)
        for name, of in fold.indexes.items():
            execute(dialect.index.format(at=at, name=name, table=fold.name, columns=of))


def drop(execute: Execute, *, at: str = "main") -> None:
    """Drop the kept tables of the database or schema `at`."""
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
