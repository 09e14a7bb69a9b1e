"""The fires that wait, kept in memory as the ledger tells of them, when they may start, and which of them is next."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.records import Event, EventKind, Fire
from modelyard.store import Store

__all__ = ["Openings", "Queue", "choose"]

_KINDS: tuple[EventKind, ...] = ("fire.queued", "fire.dropped", "run.started", "run.finished")


class Openings:
    """When fires may start, never later than was said once: a wait that is counted from now ends all the same."""

    def __init__(self) -> None:
        # Only of what a clock wrote down that was ahead.
        self._said: dict[str, float] = {}

    def of(self, fire: Fire, now: float) -> float:
        """Return when a fire may start, as far as it says itself."""
        at = min(fire.opens(now), self._said.get(fire.id, fire.not_before))
        if at < fire.not_before and fire.kind != "schedule":
            self._said[fire.id] = at
        return at

    def forget(self, fire_id: str) -> None:
        """Forget a fire that waits no longer."""
        self._said.pop(fire_id, None)


class Queue:
    """A view of the queue that costs only what is new: thousands of fires may wait.

    Args:
        store: The project's store; other processes and machines write to it as well.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seq = store.ledger.head()[0]
        self._waiting: dict[str, Fire] = {fire.id: fire for fire in store.ledger.fires(states=("queued",))}
        self._openings = Openings()
        # Runs that have begun and not ended -> their fire, whoever runs them.
        self.running: dict[str, str] = {r.id: r.fire for r in store.ledger.runs() if r.status == "running"}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def head(self) -> int:
        """Sequence number of the newest event that was taken in."""
        return self._seq

    def refresh(self) -> bool:
        """Take in what was written since; say whether anything was."""
        head = self._store.ledger.head()[0]
        if head == self._seq:
            return False
        for event in self._store.ledger.events(after=self._seq, kinds=_KINDS):
            self._take(event)
        self._seq = head
        return True

    def ready(self, now: float) -> list[Fire]:
        """Return the fires that may start now, in the order in which they were written down."""
        return [fire for fire in self._waiting.values() if self._openings.of(fire, now) <= now]

    def opens(self, now: float) -> float:
        """Return when the next fire may start that may not start now; `inf` if there is none."""
        opens = (self._openings.of(fire, now) for fire in self._waiting.values())
        return min((at for at in opens if at > now), default=float("inf"))

    def look_at(self, fire_id: str) -> None:
        """Look at a fire anew: it waits here only if the ledger says so."""
        fire = self._store.ledger.fire(fire_id)
        if fire is not None and fire.state == "queued":
            self._waiting[fire_id] = fire
        else:
            self._leaves(fire_id)

    def _take(self, event: Event) -> None:
        body = event.payload
        match event.kind:
            case "fire.queued" | "fire.dropped":
                self.look_at(body["id"])
            case "run.started":
                self.running[event.run] = body.get("fire", "")
                self._leaves(body.get("fire", ""))
            case "run.finished":
                fire = self.running.pop(event.run, "")
                if fire and body["status"] == "interrupted":
                    self.look_at(fire)

    def _leaves(self, fire_id: str) -> None:
        self._waiting.pop(fire_id, None)
        self._openings.forget(fire_id)


def choose(ready: list[Fire], served: Mapping[str, int]) -> Fire | None:
    """Return the fire that is next.

    One whose run was cut off goes on first. Else the trigger is served whose turn is longest ago, so that a thousand
    files do not keep a schedule waiting; of one trigger, the fire that was written down first.

    Args:
        ready: Fires that may start, in the order in which they were written down.
        served: Trigger -> number of its newest turn; higher is later.
    """
    cut_off = next((fire for fire in ready if fire.run), None)
    return cut_off or min(ready, key=lambda fire: served.get(fire.trigger, 0), default=None)
