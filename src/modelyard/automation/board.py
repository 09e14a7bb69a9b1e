"""All triggers of a project on one board: what each waits for, what it did last, and why it did or did not start."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.errors import ModelyardError, NotFound
from modelyard._kit.ids import new_id
from modelyard.automation.base import Trigger, Wanted
from modelyard.automation.daemon import collect
from modelyard.automation.fires import PAUSED, ask
from modelyard.automation.schedule import ScheduleTrigger
from modelyard.automation.state import DaemonState, TriggerState, daemons, published
from modelyard.records import Draft, Fire, TriggerKind
from modelyard.spec import Spec
from modelyard.store import Store

__all__ = ["MANUAL", "Row", "board", "find", "fire_by_hand", "pause", "remembered", "resume"]

# The trigger of those who ask for a run themselves.
MANUAL = "manual"
# How many times one fire stands for that was left out.
_TIMES = re.compile(r"missed while nothing ran: ([0-9,]+) times")
# Newest fires of a trigger that are looked at.
_NEWEST = 50
# Newest fires that are asked for their triggers where the declaration cannot be read.
_KNOWN = 1000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One trigger.

    Attributes:
        name: Its name.
        kind: Its kind.
        about: What it looks at.
        owner: Who answers for it.
        paused: Why it is paused, and by whom; empty: it is not.
        watched: Whether a daemon looks after it now.
        last: Its newest fire that was not dropped.
        next: When it is due next, seconds since 1970 UTC; 0: not known beforehand.
        next_text: The same in words, with the start that would be chosen as things stand now.
        looked: When it looked last; 0: not known.
        missed: How many times it was due while nothing ran, as far as its newest fires tell.
        queued: How many of its fires wait.
        dropped: Newest fires that were left out, newest first, each with its reason.
        error: Why its last look failed; empty: it did not.
        failing: Since when its looks fail.
        why: Why its newest fire did or did not start.
    """

    name: str
    kind: TriggerKind
    about: str = ""
    owner: str = ""
    paused: str = ""
    watched: bool = False
    last: Fire | None = None
    next: float = 0.0
    next_text: str = ""
    looked: float = 0.0
    missed: int = 0
    queued: int = 0
    dropped: tuple[Fire, ...] = ()
    error: str = ""
    failing: float = 0.0
    why: str = ""


def board(
    spec: Spec,
    store: Store,
    *,
    clock: Clock = system_clock,
    collect: Callable[[Spec, Store, Clock], Sequence[Trigger]] = collect,
) -> tuple[Row, ...]:
    """Return the triggers of a project in the order of its file, and at the end those who ask by hand.

    Args:
        spec: The declaration.
        store: Its store.
        clock: Source of the time.
        collect: Makes the triggers of a declaration.
    """
    now = clock()
    paused = _paused(store)
    here = _here(store)
    live = {state.name: state for state in here.triggers} if here else {}
    holds = here.holds if here else {}
    problem = here.problem if here else ""
    rows = [_row(trigger, spec, paused, live.get(trigger.name)) for trigger in collect(spec, store, clock)]
    rows.append(Row(name=MANUAL, kind="manual", about="asked for by hand", watched=here is not None))
    return tuple(_with_fires(row, store, now, holds, problem) for row in rows)


def remembered(store: Store, *, clock: Clock = system_clock) -> tuple[Row, ...]:
    """Return the triggers that the ledger and the daemon here know of, for when the declaration cannot be read."""
    now = clock()
    here = _here(store)
    paused, holds = _paused(store), (here.holds if here else {})
    kinds: dict[str, TriggerKind] = {fire.trigger: fire.kind for fire in store.ledger.fires(newest=True, limit=_KNOWN)}
    live = {state.name: state for state in here.triggers} if here else {}
    kinds |= {name: state.kind for name, state in live.items()}  # type: ignore[misc]
    rows = [
        Row(
            name=name,
            kind=kind,
            paused=paused.get(name, ""),
            watched=name in live,
            looked=live[name].looked if name in live else 0.0,
            error=live[name].error if name in live else "",
            failing=live[name].failing if name in live else 0.0,
        )
        for name, kind in sorted(kinds.items())
    ]
    problem = here.problem if here else ""
    return tuple(_with_fires(row, store, now, holds, problem) for row in rows)


def find(rows: Sequence[Row], name: str) -> Row:
    """Return the trigger of this name.

    Raises:
        NotFound: There is none (`trigger-not-found`).
    """
    for row in rows:
        if row.name == name:
            return row
    raise NotFound.of("trigger", name, (row.name for row in rows))


def fire_by_hand(name: str, store: Store, *, actor: str, payload: Any = None, clock: Clock = system_clock) -> Fire:
    """Put a fire into the queue now, whatever the trigger sees.

    Args:
        name: Name of the trigger.
        store: Where the queue is.
        actor: Who asks.
        payload: Plain JSON for the steps of the run.
        clock: Source of the time.
    """
    fire = ask(name, "manual", Wanted(key=new_id("hand"), due=clock(), payload=payload), store, actor=actor)
    assert fire is not None  # noqa: S101 - its key is new
    return fire


def pause(name: str, store: Store, *, reason: str, actor: str) -> None:
    """Have what a trigger sees dropped from now on, with this reason."""
    payload = {"trigger": name, "reason": reason}
    store.ledger.append(Draft(kind="trigger.paused", actor=actor, payload=payload), durable=True)


def resume(name: str, store: Store, *, reason: str, actor: str) -> None:
    """Let a trigger go on."""
    payload = {"trigger": name, "reason": reason}
    store.ledger.append(Draft(kind="trigger.resumed", actor=actor, payload=payload), durable=True)


def _row(trigger: Trigger, spec: Spec, paused: dict[str, str], live: TriggerState | None) -> Row:
    owner = getattr(trigger, "owner", "") or (spec.owners[0].team if spec.owners else "")
    due, text = _next(trigger)
    in_file = "in modelyard.yaml" if getattr(trigger, "paused", False) else ""
    return Row(
        name=trigger.name,
        kind=trigger.kind,
        about=getattr(trigger, "about", ""),
        owner=owner,
        paused=paused.get(trigger.name, "") or in_file,
        watched=live is not None,
        next=due,
        next_text=text,
        looked=live.looked if live else 0.0,
        error=live.error if live else "",
        failing=live.failing if live else 0.0,
    )


def _with_fires(row: Row, store: Store, now: float, holds: dict[str, str], problem: str) -> Row:
    newest = store.ledger.fires(trigger=row.name, newest=True, limit=_NEWEST)
    dropped = tuple(fire for fire in newest if fire.state == "dropped")
    waiting = store.ledger.fires(trigger=row.name, states=("queued",))
    return msgspec.structs.replace(
        row,
        last=next((fire for fire in newest if fire.state != "dropped"), None),
        queued=len(waiting),
        dropped=dropped,
        missed=_missed(dropped),
        why=_why(row, newest[0] if newest else None, store, now, holds, problem),
    )


def _next(trigger: Trigger) -> tuple[float, str]:
    """Return when a schedule is due next, and in words when it would start."""
    if not isinstance(trigger, ScheduleTrigger):
        return 0.0, ""
    try:
        coming = trigger.upcoming(1)
        return (coming[0].due if coming else 0.0), trigger.next_text()
    except ModelyardError as error:
        return 0.0, error.problem.message


def _missed(dropped: Sequence[Fire]) -> int:
    """Return how many due times were missed: one fire that was left out may stand for many."""
    words = [fire.why for fire in dropped if fire.why.startswith("missed")]
    counts = [_TIMES.search(why) for why in words]
    return sum(int(found[1].replace(",", "")) if found else 1 for found in counts)


def _why(row: Row, newest: Fire | None, store: Store, now: float, holds: dict[str, str], problem: str) -> str:
    if newest is None:
        return "nothing was seen yet"
    match newest.state:
        case "dropped" if newest.why == PAUSED and not row.paused:
            return "goes on since it was resumed; nothing was seen since"
        case "dropped":
            return f"left out: {newest.why}"
        case "started":
            return f"{newest.run} is under way"
        case "queued" if (opens := newest.opens(now)) > now:
            return f"waits until {as_text(opens)}"
        case "queued" if newest.id in holds:
            return holds[newest.id]
        case "queued" if problem:
            return f"nothing can be run now: {problem}"
        case "queued" if newest.run:
            return f"its run was cut off ({newest.why}); it goes on"
        case "queued" if (who := store.holder("run")) is not None:
            return f"waits for {who.get('run', 'another run')}"
        case "queued":
            return "waits for its turn" if row.watched or _someone(store, now) else "waits for `modelyard up`"
        case state:
            return f"{state}: {newest.why}" if newest.why else state


def _someone(store: Store, now: float) -> bool:
    return any(seen.status == "running" for seen in daemons(store, now))


def _paused(store: Store) -> dict[str, str]:
    """Return trigger -> who paused it and why, of those that are paused by hand."""
    paused: dict[str, str] = {}
    for event in store.ledger.events(kinds=("trigger.paused", "trigger.resumed")):
        if event.kind == "trigger.paused":
            reason = event.payload["reason"]
            if not reason and event.payload["trigger"] in paused:
                continue  # paused again without a word: the reason that was given stands
            paused[event.payload["trigger"]] = f"{reason} ({event.actor})" if reason else f"by {event.actor}"
        else:
            paused.pop(event.payload["trigger"], None)
    return paused


def _here(store: Store) -> DaemonState | None:
    """Return what the daemon of this folder says of itself, if it lives."""
    here = published(store.root)
    if here is None or here.host != socket.gethostname() or store.holder(f"daemon:{here.id}") is None:
        return None
    return here
