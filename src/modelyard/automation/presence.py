"""Be known to be alive, on whichever store: a name that is held, and taken again after it was lost."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager, suppress
from typing import Any

from modelyard._kit.errors import Busy
from modelyard.store import Store

__all__ = ["Presence"]


class Presence:
    """Holds `daemon:ID` on a store, and writes when the daemon began and ended.

    Args:
        store: The store.
        name: Id of the daemon.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = f"daemon:{name}"
        self._context: AbstractContextManager[Any] | None = None
        self._held: Any = None

    def take(self) -> None:
        """Begin to hold the name.

        Raises:
            Busy: The store cannot be reached.
        """
        who = {"pid": os.getpid(), "host": socket.gethostname()}
        context = self._store.hold(self._name, who=who)
        self._held = context.__enter__()
        self._context = context

    def keep(self) -> None:
        """Take the name again if its lease has ended while this machine slept or was cut off.

        Nobody else wants this name, but while it counts as lost nothing may be written.
        """
        try:
            if self._context is None:
                self.take()
            else:
                self._held.check()
        except Busy:
            self.leave()
            self.take()

    def leave(self) -> None:
        """Hold it no longer."""
        context, self._context = self._context, None
        if context is not None:
            with suppress(Busy):
                context.__exit__(None, None, None)
