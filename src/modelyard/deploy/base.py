"""What a target is: something that makes a deployment answer, and stop answering."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from modelyard.records import Deployment

__all__ = ["Running", "Target"]


@runtime_checkable
class Running(Protocol):
    """An endpoint that answers.

    Attributes:
        url: Where, e.g. `http://127.0.0.1:8080`.
        deployment: What answers there.
    """

    url: str
    deployment: Deployment

    def alive(self) -> bool:
        """Say whether it still runs."""
        ...

    def stop(self) -> None:
        """Answer what is under way, log it, and end.

        Raises:
            ServeError: Something that was answered could not be logged, or it did not end in time.
        """
        ...


@runtime_checkable
class Target(Protocol):
    """Where deployments answer: this machine, or later a cluster."""

    def start(self, deployment: Deployment) -> Running:
        """Make a deployment answer and return once it does.

        Raises:
            ServeError: It cannot start.
            Tampered: Its bundle is not what was signed.
        """
        ...
