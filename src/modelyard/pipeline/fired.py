"""What a run is told of the fire that asked for it."""

from __future__ import annotations

from typing import Any, Protocol

from modelyard.records import Fire
from modelyard.store.base import Ledger

__all__ = ["given", "joined_to"]


class _Has(Protocol):
    @property
    def ledger(self) -> Ledger: ...


def given(fire: Fire, store: _Has) -> dict[str, Any]:
    """Return what a step's function gets that asks for `fire`; once its run has begun, it is the same for ever."""
    return fire.given(joined_to(fire, store))


def joined_to(fire: Fire, store: _Has) -> list[Any]:
    """Return what came with the deliveries that joined a fire, in the order in which they came."""
    found: list[Any] = []
    if fire.kind != "webhook":
        return found
    for event in store.ledger.events(after=fire.seq, kinds=("fire.dropped", "run.started")):
        if event.kind == "fire.dropped" and event.payload.get("joined") == fire.id:
            found.append(event.payload.get("payload"))
        elif event.kind == "run.started" and event.payload.get("fire") == fire.id:
            # The ledger lets nothing join it from here on.
            break
    return found
