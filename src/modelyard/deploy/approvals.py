"""Who has approved that a model enters a stage: events, of which the newest of a person counts.

An approval is of a model with its card: a new card, with other evidence or other words, asks for new ones. And it lets
the model in once: what has left the stage, because somebody went back from it or another took its place, asks for new
ones, since nobody who approved it knew why it would leave.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from modelyard.records import Deployment, Draft, EventKind, ModelVersion, read_value
from modelyard.store.base import Store

__all__ = ["Approval", "approvals", "drafted", "every", "listed"]


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What one person has said of one model.

    Attributes:
        actor: Who, e.g. `user:ana`.
        time: When, seconds since 1970 UTC.
        reason: Why; may be empty.
    """

    actor: str
    time: float
    reason: str = ""


def approvals(store: Store, endpoint: str, model: ModelVersion) -> tuple[Approval, ...]:
    """Return the approvals that stand, one a person, in the order in which they were given.

    Args:
        store: Where the ledger is.
        endpoint: The endpoint that the stage is.
        model: The version, with its card.
    """
    return every(store).get((endpoint, model.identity), ())


def every(store: Store) -> dict[tuple[str, str], tuple[Approval, ...]]:
    """Return all approvals that stand, by endpoint and by the identity of the model with its card."""
    found: dict[tuple[str, str], dict[str, Approval]] = {}
    there: dict[tuple[str, str], str] = {}
    for event in store.ledger.events(kinds=("model.approved", "model.unapproved", "alias.moved")):
        body = event.payload
        if event.kind == "alias.moved":
            to: Deployment = read_value(body["deployment"])
            left = there.get((to.endpoint, to.alias))
            there[to.endpoint, to.alias] = to.model.identity
            if left is not None and left != to.model.identity:
                found.pop((to.endpoint, left), None)
            continue
        given = found.setdefault((body["endpoint"], body["identity"]), {})
        given.pop(event.actor, None)
        if event.kind == "model.approved":
            given[event.actor] = Approval(actor=event.actor, time=event.time, reason=body["reason"])
    return {of: tuple(given.values()) for of, given in found.items()}


def drafted(kind: EventKind, endpoint: str, stage: str, model: ModelVersion, *, actor: str, reason: str) -> Draft:
    """Return the event that gives an approval or takes it back."""
    payload = {
        "endpoint": endpoint,
        "stage": stage,
        "model": model.digest,
        "identity": model.identity,
        "reason": reason.strip(),
    }
    return Draft(kind=kind, actor=actor, payload=payload)


def listed(given: Iterable[Approval]) -> str:
    """Return who has approved, for a sentence."""
    return ", ".join(one.actor for one in given)
