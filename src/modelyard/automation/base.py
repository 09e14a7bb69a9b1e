"""The protocol of a trigger: what looks at the world and says when a run is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard.records import Item, TriggerKind

__all__ = ["Look", "Trigger", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that a trigger asks for; `fires.write` puts it into the ledger, once a key.

    Attributes:
        key: What makes it one and the same however often it is seen, by whichever machine: due time for a schedule,
            file and version for a file, the sender's id for a webhook. Unique within the trigger.
        due: When it was to be, seconds since 1970 UTC.
        not_before: When it may start, where that is later.
        items: What changed.
        seen: Name of an item -> the version that this fire stands for; an empty text means that it is gone.
        payload: Plain JSON that the run's steps may read.
        drop: Why it is written down and left out; empty: it runs.
    """

    key: str
    due: float
    not_before: float = 0.0
    items: Sequence[Item] = ()
    seen: Mapping[str, str] = field(default_factory=dict)
    payload: Any = None
    drop: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What a trigger found.

    Attributes:
        wanted: Runs to ask for, in order.
        again: When it wants to look again, seconds since 1970 UTC; `inf`: only when it is woken.
        baseline: What was there at the very first look, as `Wanted.seen`; nothing is fired for it.
    """

    wanted: Sequence[Wanted] = ()
    again: float = float("inf")
    baseline: Mapping[str, str] = field(default_factory=dict)


class Trigger(Protocol):
    """Looks at the world; keeps nothing that a restart would miss, because what it has fired for is in the ledger."""

    @property
    def name(self) -> str:
        """Its name in the file; `schedule` for the schedule."""
        ...

    @property
    def kind(self) -> TriggerKind:
        """Its kind."""
        ...

    def start(self, wake: Callable[[], None]) -> None:
        """Begin to listen, where the system can tell of changes; `wake` may be called from any thread."""
        ...

    def look(self, now: float) -> Look:
        """Look now and say what is wanted.

        Looking twice at the same world says the same keys; the daemon calls it when it is due or woken, and right
        after a restart.

        Raises:
            ModelyardError: The source cannot be looked at now; the board shows why, and it is tried again.
        """
        ...

    def close(self) -> None:
        """Stop listening."""
        ...
