"""Write down what triggers ask for, each once."""

from __future__ import annotations

import secrets
from typing import Any

from modelyard._kit.errors import Taken
from modelyard._kit.ids import new_id
from modelyard.automation.base import Look, Trigger, Wanted
from modelyard.records import Draft, Fire, TriggerKind, plain
from modelyard.store import Store

__all__ = ["PAUSED", "ask", "drop", "is_paused", "write"]


# Why a fire of a trigger that a person has paused is left out.
PAUSED = "the trigger is paused"


def write(trigger: Trigger, look: Look, store: Store) -> list[Fire]:
    """Write down what a trigger found; what is in the ledger already, by whichever machine, is left alone.

    Returns:
        The fires that are new, those that were dropped included.
    """
    if look.baseline:
        seen = {"trigger": trigger.name, "seen": dict(look.baseline)}
        store.ledger.append(Draft(kind="trigger.seen", actor=f"trigger:{trigger.name}", payload=seen))
    paused = bool(look.wanted) and is_paused(trigger.name, store)
    new = []
    for wanted in look.wanted:
        why = wanted.drop or (PAUSED if paused else "")
        fire = ask(trigger.name, trigger.kind, wanted, store, actor=f"trigger:{trigger.name}", drop=why)
        if fire is not None:
            new.append(fire)
    return new


def ask(
    trigger: str, kind: TriggerKind, wanted: Wanted, store: Store, *, actor: str, drop: str = "", joins: str = ""
) -> Fire | None:
    """Write one fire down, durably; none if its key was written before, or the fire that it joins waits no longer.

    Args:
        trigger: Name of the trigger.
        kind: Its kind.
        wanted: What it asks for.
        store: Where the queue is.
        actor: Who asks: `trigger:NAME` or `user:NAME`.
        drop: Why it is left out; empty: it is queued.
        joins: Id of a fire that waits and whose run is to see what came with this one too.
    """
    fire_id = new_id("fire")
    body: dict[str, Any] = {
        "id": fire_id,
        "key": f"{trigger}/{wanted.key}",
        "trigger": trigger,
        "kind": kind,
        "due": wanted.due,
        "items": plain(list(wanted.items)),
        "seen": dict(wanted.seen),
    }
    if joins:
        told = {"why": f"joined fire {joins}", "joined": joins, "payload": wanted.payload}
        draft = Draft(kind="fire.dropped", actor=actor, payload={**body, **told})
    elif drop:
        draft = Draft(kind="fire.dropped", actor=actor, payload={**body, "why": drop})
    else:
        body |= {
            "not_before": wanted.not_before,
            "trace": secrets.token_hex(16),
            "payload": wanted.payload,
        }
        draft = Draft(kind="fire.queued", actor=actor, payload=body)
    try:
        # A sender who was told that it is taken must find it so after a power cut.
        store.ledger.append(draft, durable=True)
    except Taken:
        return None
    return store.ledger.fire(fire_id)


def drop(fire: Fire, why: str, store: Store) -> bool:
    """Take a fire out of the queue for good, with the reason; not one that somebody has started meanwhile."""
    about = {name: getattr(fire, name) for name in ("id", "key", "trigger", "kind", "due")}
    payload = {**about, "why": why, "queued": True}
    try:
        store.ledger.append(Draft(kind="fire.dropped", actor=f"trigger:{fire.trigger}", payload=payload), durable=True)
    except Taken:
        return False
    return True


def is_paused(trigger: str, store: Store) -> bool:
    """Say whether a person has paused a trigger."""
    paused = False
    for event in store.ledger.events(kinds=("trigger.paused", "trigger.resumed")):
        if event.payload["trigger"] == trigger:
            paused = event.kind == "trigger.paused"
    return paused
