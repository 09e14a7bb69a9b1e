"""What a version asks of those who compare it with another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from modelyard.serving.asked import Asked
from modelyard.serving.http.exchange import Exchange

if TYPE_CHECKING:
    from modelyard.serving.service import Service

__all__ = ["Picks", "Watch"]


class Watch(Protocol):
    """Sees what a version answers."""

    def answered(self, service: Service, group: list[Asked], took: list[float]) -> None:
        """Take what was asked together, and the milliseconds of what was answered of it."""
        ...


class Picks(Protocol):
    """Chooses between two versions that take the same columns."""

    def pick(self, exchange: Exchange) -> Service:
        """Return the version that answers a request."""
        ...
