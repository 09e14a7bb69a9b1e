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
    return [one.payload for one in store.ledger.joined(fire.id)] if fire.kind == "webhook" else []
