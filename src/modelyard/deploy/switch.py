"""Switch an endpoint off and on again: its servers hear of it within a second, whatever they are doing."""

from __future__ import annotations

from modelyard._kit.errors import Refused
from modelyard.records import Draft
from modelyard.store.base import Store

__all__ = ["kill", "killed", "revive"]


def killed(store: Store, endpoint: str) -> str:
    """Return why an endpoint is switched off; empty if it is not."""
    reason = ""
    for event in store.ledger.events(kinds=("endpoint.killed", "endpoint.revived")):
        if event.payload["endpoint"] == endpoint:
            reason = event.payload["reason"] if event.kind == "endpoint.killed" else ""
    return reason


def kill(store: Store, endpoint: str, *, reason: str, actor: str) -> None:
    """Switch an endpoint off: every server of it answers 503 until it is switched on again.

    Args:
        store: Where the ledger is.
        endpoint: Its name.
        reason: Why; callers are not told.
        actor: Who does it.

    Raises:
        Refused: No reason is given (`kill-no-reason`).
    """
    if not reason.strip():
        raise Refused("kill-no-reason", "an endpoint is not switched off without a reason", hint="say why: --reason")
    payload = {"endpoint": endpoint, "reason": reason.strip()}
    store.ledger.append(Draft(kind="endpoint.killed", actor=actor, payload=payload), durable=True)


def revive(store: Store, endpoint: str, *, reason: str = "", actor: str) -> bool:
    """Switch an endpoint on again; say whether it was off."""
    if not killed(store, endpoint):
        return False
    payload = {"endpoint": endpoint, "reason": reason.strip() or f"revived by {actor}"}
    store.ledger.append(Draft(kind="endpoint.revived", actor=actor, payload=payload), durable=True)
    return True
