"""Whether a fire that waits in the queue may start now: the last word of its trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from modelyard.records import Fire

__all__ = ["GO", "Gate", "Hold"]


@dataclass(frozen=True, slots=True)
class Hold:
    """What a trigger says of a fire of its own that could start.

    Attributes:
        until: When to ask again, seconds since 1970 UTC; 0: it may start.
        why: Why it waits, or why it is dropped.
        drop: Whether it will never start.
    """

    until: float = 0.0
    why: str = ""
    drop: bool = False


# It may start.
GO = Hold()


@runtime_checkable
class Gate(Protocol):
    """A trigger that has a word when its fires start, and not only when they are written down."""

    def hold(self, fire: Fire, now: float) -> Hold:
        """Say whether one of its fires, whose `not_before` has come, may start now."""
        ...
