"""The board of triggers and the daemons, as pages show them: from the declaration, or from the ledger alone."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard._kit.errors import ModelyardError, Problem
from modelyard.automation.board import MANUAL, Row, board
from modelyard.automation.state import ChildState, Seen, daemons
from modelyard.records import Fire
from modelyard.security.redact import redact
from modelyard.web.declared import told
from modelyard.web.pages.fires import FireRow, fire_row
from modelyard.web.reader import Reader

__all__ = ["Board", "ChildRow", "DaemonRow", "TriggerRow", "board_of", "daemon_rows"]

# Newest fires in which triggers are looked for that no declaration names.
_KNOWN = 500
_NEWEST = 50


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """One trigger.

    Attributes:
        name: Its name.
        kind: Its kind.
        about: What it looks at.
        owner: Who answers for it.
        look: How it stands, as it is shown: `failed` (its looks fail), `paused`, `queued`, `started`, the state of its
            last fire, or `never`.
        paused: Why it is paused, and by whom; empty: it is not.
        watched: Whether a daemon looks after it now.
        last: Its newest fire that was not left out.
        next: When it is due next, seconds since 1970 UTC; 0: not known beforehand.
        next_text: The same in words, with the start that would be chosen as things stand now.
        missed: How many times it was due while nothing ran.
        queued: How many of its fires wait.
        dropped: How many of its newest fires were left out.
        error: Why its last look failed; empty: it did not.
        failing: Since when its looks fail.
        why: Why its newest fire did or did not start.
    """

    name: str
    kind: str
    about: str
    owner: str
    look: str
    paused: str
    watched: bool
    last: FireRow | None
    next: float
    next_text: str
    missed: int
    queued: int
    dropped: int
    error: str
    failing: float
    why: str


@dataclass(frozen=True, slots=True)
class ChildRow:
    """One process that a daemon keeps.

    Attributes:
        name: `runner`, `serve`, `ui` or `alerts`.
        state: `running`, `waiting` to be started again, `stopped`; `lost` where its daemon is lost.
        pid: Its process; 0 while there is none.
        since: Since when, seconds since 1970 UTC.
        restarts: How often it was started again after it had died.
        next: When it is started again.
        said: How it ended the last time, or its last line.
    """

    name: str
    state: str
    pid: int
    since: float
    restarts: int
    next: float
    said: str


@dataclass(frozen=True, slots=True)
class DaemonRow:
    """One daemon.

    Attributes:
        id: Its id.
        host: Name of its machine.
        pid: Its process there.
        since: When it began.
        status: `running`, `stuck` (it lives and does nothing) or `lost` (its process died).
        here: Whether it is the one of this very folder.
        beat: When it was heard of last; 0: not known.
        run: Id of the run that it runs.
        problem: Why nothing can run; empty: all is well.
        hooks: Address where webhooks are received; empty: nowhere.
        children: Its processes.
        holds: Fire that waits -> why its trigger does not let it start yet.
    """

    id: str
    host: str
    pid: int
    since: float
    status: str
    here: bool
    beat: float
    run: str
    problem: str
    hooks: str
    children: tuple[ChildRow, ...]
    holds: dict[str, str]


@dataclass(frozen=True, slots=True)
class Board:
    """The triggers, and why some of it may be missing.

    Attributes:
        rows: The triggers.
        problem: Why the declaration could not be read; none: it could.
    """

    rows: tuple[TriggerRow, ...]
    problem: Problem | None


def board_of(store: Reader) -> Board:
    """Return the board; where the declaration is missing or wrong, what the ledger knows of its triggers."""
    declared = store.declared()
    problem = declared.problem
    rows: tuple[Row, ...] = ()
    if declared.spec is not None:
        try:
            rows = board(declared.spec, store.store, clock=store.clock)
        except ModelyardError as error:
            problem = told(error)
    if problem is not None:
        rows = _from_ledger(store)
    return Board(tuple(_row(row) for row in rows), problem)


def _from_ledger(store: Reader) -> tuple[Row, ...]:
    paused: dict[str, str] = {}
    for event in store.ledger.events(kinds=("trigger.paused", "trigger.resumed")):
        name, reason = str(event.payload.get("trigger", "")), event.payload.get("reason", "")
        if event.kind == "trigger.paused":
            paused[name] = f"{reason} ({event.actor})" if reason else f"by {event.actor}"
        else:
            paused.pop(name, None)
    fires: dict[str, list[Fire]] = {}
    for fire in store.ledger.fires(newest=True, limit=_KNOWN):
        fires.setdefault(fire.trigger, []).append(fire)
    rows = []
    for name, mine in sorted(fires.items(), key=lambda pair: pair[0] == MANUAL):
        dropped = tuple(fire for fire in mine[:_NEWEST] if fire.state == "dropped")
        newest = mine[0]
        rows.append(
            Row(
                name=name,
                kind=newest.kind,
                paused=paused.get(name, ""),
                last=next((fire for fire in mine if fire.state != "dropped"), None),
                queued=sum(fire.state == "queued" for fire in mine),
                dropped=dropped,
                why=f"left out: {newest.why}" if newest.state == "dropped" else newest.why,
            )
        )
    return tuple(rows)


def _row(row: Row) -> TriggerRow:
    return TriggerRow(
        name=row.name,
        kind=row.kind,
        about=redact(row.about),
        owner=row.owner,
        look=_look(row),
        paused=redact(row.paused),
        watched=row.watched,
        last=fire_row(row.last) if row.last else None,
        next=row.next,
        next_text=redact(row.next_text),
        missed=row.missed,
        queued=row.queued,
        dropped=len(row.dropped),
        error=redact(row.error),
        failing=row.failing,
        why=redact(row.why),
    )


def _look(row: Row) -> str:
    if row.error:
        return "failed"
    if row.paused:
        return "paused"
    if row.last is not None and row.last.state == "started":
        return "started"
    if row.queued:
        return "queued"
    return row.last.state if row.last is not None else ("dropped" if row.dropped else "never")


def daemon_rows(store: Reader) -> tuple[DaemonRow, ...]:
    """Return the daemons that began on the store and did not end, on whichever machine, newest first."""
    return tuple(_daemon(seen) for seen in reversed(daemons(store.store, store.clock())))


def _daemon(seen: Seen) -> DaemonRow:
    here = seen.here
    lost = seen.status == "lost"
    return DaemonRow(
        id=seen.id,
        host=seen.host,
        pid=seen.pid,
        since=seen.since,
        status=seen.status,
        here=here is not None,
        beat=here.beat if here else 0.0,
        run=here.run if here and not lost else "",
        problem=redact(here.problem) if here and not lost else "",
        hooks=redact(here.hooks) if here and not lost else "",
        children=tuple(_child(child, lost=lost) for child in here.children) if here else (),
        holds=dict(here.holds) if here and not lost else {},
    )


def _child(child: ChildState, *, lost: bool) -> ChildRow:
    said = child.ended or (child.said[-1] if child.said else "")
    return ChildRow(
        name=child.name,
        # What a lost daemon published of its processes is from before: they went with it.
        state="lost" if lost else child.state,
        pid=0 if lost else child.pid,
        since=child.since,
        restarts=child.restarts,
        next=0.0 if lost else child.next,
        said=redact(said),
    )
