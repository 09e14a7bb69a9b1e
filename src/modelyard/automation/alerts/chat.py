"""Hand a message to a chat, through Apprise.

It says what went wrong in its log only, and waits some seconds between two messages to one place: each target has its
own thread, and each thread its own copy of what was made of the address.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from modelyard.automation.alerts.text import Message
from modelyard.automation.alerts.undelivered import Undelivered, masked
from modelyard.spec.sections.addresses import apprise_of

__all__ = ["Chat"]

_LOG = "apprise"


class _Said(logging.Handler):
    """Keeps what one thread was told."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


class Chat:
    """One place in a chat.

    Args:
        address: As Apprise takes it.

    Raises:
        Undelivered: Apprise cannot read it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._place: Any = apprise_of(address)
        if self._place is None:
            raise Undelivered("Apprise cannot read the address")

    def send(self, message: Message) -> str:
        """Send a message.

        Raises:
            Undelivered: It was not taken.
        """
        import apprise

        log, said = logging.getLogger(_LOG), _Said()
        head, _, rest = message.short.partition("\n")
        log.addHandler(said)
        try:
            # What stands in a message is text, whatever it looks like.
            taken = self._place.notify(
                title=head,
                body=rest or head,
                notify_type=_KIND[message.urgency],
                body_format=apprise.NotifyFormat.TEXT,
            )
        except Exception as error:  # noqa: BLE001 - a plugin for one of a hundred services may raise anything
            raise Undelivered(masked(f"{type(error).__name__}: {error}", self._address)) from None
        finally:
            log.removeHandler(said)
        if not taken:
            why = said.lines[-1] if said.lines else "it did not say why"
            raise Undelivered(masked(f"the chat did not take it: {why}", self._address))
        return "taken by the chat"


_KIND = {"low": "info", "normal": "warning", "high": "failure"}
