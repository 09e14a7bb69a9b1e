"""Switch an endpoint off and on again: its servers hear of it within a second, whatever they are doing."""

from __future__ import annotations

import msgspec

from modelyard._kit.clock import as_text
from modelyard._kit.errors import Refused
from modelyard.records import Draft, Event, EventKind
from modelyard.store.base import Store

__all__ = ["Off", "Unloaded", "kill", "killed", "revive", "switched_off", "unloaded"]


class Off(msgspec.Struct, frozen=True):
    """An endpoint that is switched off.

    Attributes:
        endpoint: Its name.
        since: Since when, seconds since 1970 UTC.
        actor: Who did it; `server`: the alarm of its guards.
        reason: Why.
    """

    endpoint: str
    since: float
    actor: str
    reason: str

    def __str__(self) -> str:
        """Say since when, by whom and why, and what switches it on."""
        revive = f"`modelyard revive {self.endpoint}` switches it on again"
        return f"since {as_text(self.since)}, by {self.actor}: {self.reason}; {revive}"


class Unloaded(msgspec.Struct, frozen=True):
    """An endpoint whose model a caller has unloaded.

    Attributes:
        endpoint: Its name.
        since: Since when, seconds since 1970 UTC.
        caller: Name of the token.
    """

    endpoint: str
    since: float
    caller: str

    def __str__(self) -> str:
        """Say since when, by whom, for which servers it holds, and what loads it again."""
        load = f"`POST /v2/repository/models/{self.endpoint}/load` loads it again"
        return f"since {as_text(self.since)}, by {self.caller}, in servers that were up then; {load}"


def unloaded(store: Store) -> tuple[Unloaded, ...]:
    """Return every endpoint whose model is unloaded, by name; a server that began since then holds it all the same."""
    return tuple(
        Unloaded(event.payload["endpoint"], event.time, event.payload["caller"])
        for event in _newest(store, "endpoint.loaded", "endpoint.unloaded")
        if event.kind == "endpoint.unloaded"
    )


def switched_off(store: Store) -> tuple[Off, ...]:
    """Return every endpoint that is switched off, by name."""
    return tuple(
        Off(event.payload["endpoint"], event.time, event.actor, event.payload["reason"])
        for event in _newest(store, "endpoint.killed", "endpoint.revived")
        if event.kind == "endpoint.killed"
    )


def _newest(store: Store, *kinds: EventKind) -> list[Event]:
    """Return the newest event of some kinds for each endpoint, by its name."""
    found = {event.payload["endpoint"]: event for event in store.ledger.events(kinds=kinds)}
    return [found[name] for name in sorted(found)]


def killed(store: Store, endpoint: str) -> str:
    """Return why an endpoint is switched off; empty if it is not."""
    return next((one.reason for one in switched_off(store) if one.endpoint == endpoint), "")


def kill(store: Store, endpoint: str, *, reason: str, actor: str) -> Off | None:
    """Switch an endpoint off: every server of it answers 503 until it is switched on again.

    Args:
        store: Where the ledger is.
        endpoint: Its name.
        reason: Why; callers are not told.
        actor: Who does it.

    Returns:
        Who had switched it off already, and why: that stays as it is. None if nobody had.

    Raises:
        Refused: No reason is given (`kill-no-reason`).
    """
    if not reason.strip():
        raise Refused("kill-no-reason", "an endpoint is not switched off without a reason", hint="say why: --reason")
    for one in switched_off(store):
        if one.endpoint == endpoint:
            return one
    payload = {"endpoint": endpoint, "reason": reason.strip()}
    store.ledger.append(Draft(kind="endpoint.killed", actor=actor, payload=payload), durable=True)
    return None


def revive(store: Store, endpoint: str, *, reason: str = "", actor: str) -> bool:
    """Switch an endpoint on again; say whether it was off."""
    if not killed(store, endpoint):
        return False
    payload = {"endpoint": endpoint, "reason": reason.strip() or f"revived by {actor}"}
    store.ledger.append(Draft(kind="endpoint.revived", actor=actor, payload=payload), durable=True)
    return True
