"""What the newest measurement says of the runtimes of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard._kit.machine import kind_of_machine
from modelyard.records import Event
from modelyard.store.base import Ledger

__all__ = ["holds_here", "newest_decision"]


def newest_decision(ledger: Ledger, digest: str) -> Event | None:
    """Return the newest event in which the runtimes of a model were measured; none: they never were."""
    found = None
    for event in ledger.events(kinds=("runtimes.finished",)):
        if event.payload.get("model") == digest:
            found = event
    return found


def holds_here(payload: Mapping[str, Any]) -> bool:
    """Say whether a decision counts on this machine: the runtime was named, or measured on a machine like it."""
    return bool(payload.get("forced")) or payload.get("machine") == kind_of_machine()
