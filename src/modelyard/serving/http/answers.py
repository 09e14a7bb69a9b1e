"""What a connection asks of the server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from modelyard.serving.errors import HttpError
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import Head, Heads
from modelyard.serving.limits import Limits, Unfinished

__all__ = ["Answers"]


class Answers(Protocol):
    """What answers exchanges; the same for every connection of a server.

    While it is `pressed`, requests may be refused at once by `shed`.
    """

    limits: Limits
    connections: set[Any]
    unfinished: Unfinished
    heads: Heads
    ids: Iterator[str]
    draining: bool
    pressed: bool
    cors: frozenset[bytes]

    @property
    def crowded(self) -> bool:
        """Whether there are more connections than there may be."""
        ...

    def admit(self, exchange: Exchange) -> None:
        """Say whether the request may be made, as soon as its headers are there and before its body is.

        Raises:
            HttpError: It may not.
        """
        ...

    def again(self, exchange: Exchange) -> None:
        """Do what `begin` does for a request whose head was admitted a moment ago, unless its caller asks too often."""
        ...

    def shed(self, head: Head) -> bytes:
        """Return the whole refusal of a request whose head was admitted a moment ago; empty if it finds room."""
        ...

    def begin(self, exchange: Exchange) -> None:
        """Answer a whole request, now or later, by `exchange.reply` or `exchange.refuse`."""
        ...

    def left(self) -> None:
        """Take note that somebody who waits for an answer has hung up."""
        ...

    def refused(self, error: HttpError, exchange: Exchange | None = None) -> None:
        """Count a refusal; without an exchange it never became a request."""
        ...
