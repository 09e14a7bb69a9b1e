"""A fire: one time at which a trigger asked for a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec

from modelyard.records.event import Event

__all__ = ["Fire", "FireState", "Item", "TriggerKind", "fire_of"]

TriggerKind = Literal["schedule", "files", "blobs", "sql", "webhook", "upstream", "drift", "manual"]
# What was written down so many seconds after now was written by a clock that was far ahead.
_FAR = 86_400.0
FireState = Literal["queued", "started", "succeeded", "failed", "cancelled", "skipped", "stopped", "dropped"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a trigger saw change.

    Attributes:
        name: Path, address or name of it.
        change: What happened to it.
        version: What tells this state of it from every other (`size-mtime`, an etag, a row count); empty: it is gone.
    """

    name: str
    change: Literal["created", "updated", "deleted"]
    version: str = ""


class Fire(msgspec.Struct, frozen=True, kw_only=True):
    """One time at which a trigger asked for a run, folded from its events.

    Attributes:
        id: Its id.
        key: What makes it one and the same however often it is seen: trigger and due time, or trigger, file and
            version. The ledger takes each key once.
        trigger: Name of the trigger.
        kind: Its kind.
        due: When it was to be, seconds since 1970 UTC.
        queued: When it was written down.
        not_before: When it may start; later than `due` where it waits for a cheaper hour or a settled file.
        actor: Who asked: `trigger:NAME` or `user:NAME`.
        trace: Id that ties the fire to its runs, log lines, alerts and requests: 32 hex digits.
        items: What changed.
        payload: Plain JSON that came with it: a webhook's body, the price that was saved.
        joined: Id of the fire whose run stands for this one too; this one is dropped.
        seq: Number of the event that wrote it down.
        state: How it stands. `queued`: waits for its turn, also after its run was cut off.
        run: Id of the newest run that it started.
        why: Why it did not start, or why its run ended as it did.
    """

    id: str
    key: str
    trigger: str
    kind: TriggerKind
    due: float
    queued: float
    not_before: float = 0.0
    actor: str = ""
    trace: str = ""
    items: tuple[Item, ...] = ()
    payload: Any = None
    joined: str = ""
    seq: int = 0
    state: FireState = "queued"
    run: str = ""
    why: str = ""

    def opens(self, now: float) -> float:
        """Return when it may start, as far as it says itself.

        A clock that was ahead when it was written down may have been years ahead: its wait is counted from now then.
        """
        if self.kind == "schedule":
            # Its trigger has the last word, by the time for which it is due.
            return 0.0 if self.queued > now + _FAR else self.not_before
        if self.queued <= now:
            return self.not_before
        return min(self.not_before, now + max(0.0, self.not_before - self.queued))

    def given(self, joined: Sequence[Any] = ()) -> dict[str, Any]:
        """Return what a step's function gets that asks for `fire`: the same however often the fire is resumed.

        Args:
            joined: What came with those that joined it, in order.
        """
        about = {"id": self.id, "trigger": self.trigger, "kind": self.kind, "due": self.due, "payload": self.payload}
        return {**about, "payloads": [self.payload, *joined], "items": msgspec.to_builtins(self.items)}


def fire_of(event: Event, *, state: str = "", run: str = "", why: str = "") -> Fire:
    """Return a fire as its `fire.queued` or `fire.dropped` event tells it, and how it stands now."""
    body = event.payload
    known: FireState = "dropped" if event.kind == "fire.dropped" else "queued"
    if state in get_args(FireState):
        known = state  # type: ignore[assignment]
    return Fire(
        id=body["id"],
        key=body["key"],
        trigger=body["trigger"],
        kind=body["kind"],
        due=body["due"],
        queued=event.time,
        not_before=body.get("not_before", 0.0),
        actor=event.actor,
        trace=body.get("trace", ""),
        items=msgspec.convert(body.get("items", []), tuple[Item, ...]),
        payload=body.get("payload"),
        joined=body.get("joined", ""),
        seq=event.seq,
        state=known,
        run=run,
        why=why or body.get("why", ""),
    )
