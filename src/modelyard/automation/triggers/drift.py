"""Fire when `modelyard watch` found that the requests are no longer what the model was trained on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from modelyard.automation.triggers.followed import Followed
from modelyard.records import Event, Item, TriggerKind
from modelyard.spec.sections.triggers import OwnTrigger
from modelyard.store import Store

__all__ = ["DriftTrigger"]


class DriftTrigger(Followed):
    """Follows the project's own watches.

    Args:
        name: Its name in the file.
        section: What the file says of it.
        endpoint: The endpoint that is watched.
        store: Where the watches are told, and its fires are written down.
        stages: The endpoints of all stages, which are all watched.
    """

    kind: TriggerKind = "drift"

    def __init__(
        self, name: str, section: OwnTrigger, endpoint: str, store: Store, *, stages: Collection[str] = ()
    ) -> None:
        super().__init__(name, section, store, endpoint)
        self._endpoints = {endpoint, *stages}

    def _head(self) -> tuple[int, str]:
        return self._store.ledger.head()

    def _hash_at(self, seq: int) -> str:
        return next((event.hash for event in self._store.ledger.events(after=seq - 1, limit=1) if event.seq == seq), "")

    def _events(self, after: int) -> list[Event]:
        found = self._store.ledger.events(after=after, kinds=("watch.finished",))
        return [e for e in found if e.payload.get("endpoint") in self._endpoints and _failed(e)]

    def _key(self, event: Event) -> str:
        return f"event {event.seq}"

    def _item(self, event: Event) -> Item:
        return Item(name=event.payload["endpoint"], change="updated", version=str(event.seq))

    def _payload(self, event: Event) -> Any:
        return {
            "endpoint": event.payload["endpoint"],
            "model": event.payload.get("model", ""),
            "window": event.payload.get("window"),
            "event": event.seq,
            "failed": _failed(event),
        }


def _failed(event: Event) -> list[dict[str, Any]]:
    """Return name, value and limit of each check that failed."""
    return [
        {
            "check": result.get("check", {}).get("name", ""),
            "value": (result.get("evidence") or {}).get("value"),
            "reason": result.get("reason", ""),
        }
        for result in event.payload.get("results", ())
        if result.get("status") == "failed"
    ]
