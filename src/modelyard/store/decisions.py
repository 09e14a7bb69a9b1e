"""What the newest measurement says of the runtimes of a model."""

from __future__ import annotations

from modelyard.records import Event
from modelyard.store.base import Ledger

__all__ = ["newest_decision"]


def newest_decision(ledger: Ledger, digest: str) -> Event | None:
    """Return the newest event in which the runtimes of a model were measured; none: they never were."""
    found = None
    for event in ledger.events(kinds=("runtimes.finished",)):
        if event.payload.get("model") == digest:
            found = event
    return found
