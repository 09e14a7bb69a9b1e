"""Write into the ledger what became of a version: an alias moved back or on, the decision of an A/B test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import msgspec

from modelyard.checks.ab import Compared
from modelyard.records import Deployment, Draft, Event, plain
from modelyard.store.base import Store

__all__ = ["TAKEN_BACK", "Pointer", "conclude", "settle"]

# With this begins why a server has pointed an alias back at the version before.
TAKEN_BACK = "deployment taken back: "


class Pointer(msgspec.Struct, frozen=True):
    """Where an alias points, and since when.

    Attributes:
        to: The deployment.
        since: Time of the move, in seconds since 1970 UTC.
        seq: Number of its event.
        back: A server has gone back to it from a version that was not as it should be.
    """

    to: Deployment
    since: float
    seq: int
    back: bool = False

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return where an alias points by the event of its move."""
        to = msgspec.convert(event.payload["deployment"], Deployment)
        return cls(to, event.time, event.seq, event.actor == "server" and to.reason.startswith(TAKEN_BACK))


def settle(store: Store, seen: Sequence[Pointer], was: Deployment, to: Deployment, reason: str) -> bool:
    """Point an alias at the model of another deployment, unless somebody has moved an alias since.

    Args:
        store: Where the ledger is.
        seen: Where the aliases pointed on which this was decided.
        was: Where the alias points that is moved.
        to: Whose model it points at then.
        reason: Why.

    Returns:
        Whether it was written.

    Raises:
        Busy: Somebody else moves an alias of this endpoint; it is tried again at the next look.
    """
    with store.hold(f"alias.{was.endpoint}", who={"actor": "server"}):
        if _moved(store, seen):
            return False
        store.ledger.append(_move(was, to, reason), durable=True)
    return True


def conclude(store: Store, champion: Pointer, challenger: Pointer, found: Compared, *, promote: bool) -> bool:
    """Write the decision of an A/B test once, and with it where it leads.

    A challenger that lost, or that nothing could be said for in time, is taken back; one that won becomes the champion
    where that is declared, else it goes on with its share until somebody decides.

    Args:
        store: Where the ledger is.
        champion: Where the champion pointed during the test.
        challenger: Where the challenger pointed.
        found: What was found, with a decision.
        promote: A challenger that won becomes the champion.

    Returns:
        Whether it was written: not if somebody has moved an alias since, or another process has written it.

    Raises:
        Busy: Somebody else moves an alias of this endpoint; it is tried again at the next look.
    """
    endpoint, reason = champion.to.endpoint, f"A/B test: {found.reason}"
    payload = {
        "endpoint": endpoint,
        "champion": champion.to.model.digest,
        "challenger": challenger.to.model.digest,
        "began": challenger.seq,
        "found": msgspec.to_builtins(found),
    }
    drafts = [Draft(kind="ab.finished", actor="server", payload=payload)]
    if found.decision != "challenger":
        drafts.append(_move(challenger.to, champion.to, reason))
    elif promote and challenger.to.model.released:
        drafts.append(_move(champion.to, challenger.to, reason))
    with store.hold(f"alias.{endpoint}", who={"actor": "server"}):
        written = store.ledger.events(after=challenger.seq, kinds=("ab.finished",))
        if _moved(store, (champion, challenger)) or any(e.payload["began"] == challenger.seq for e in written):
            return False
        store.ledger.append(*drafts, durable=True)
    return True


def _moved(store: Store, seen: Sequence[Pointer]) -> bool:
    return any(store.ledger.alias(one.to.endpoint, one.to.alias) != one.to for one in seen)


def _move(was: Deployment, to: Deployment, reason: str) -> Draft:
    deployment = Deployment(
        endpoint=was.endpoint,
        alias=was.alias,
        model=to.model,
        revision=was.revision + 1,
        previous=was.model.digest,
        reason=reason,
    )
    return Draft(kind="alias.moved", actor="server", payload={"deployment": plain(deployment)})
