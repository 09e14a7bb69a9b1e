"""The second port of a server: takes connections that speak gRPC, and ends them with the first one's."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard.serving.grpc.answers import Calls
from modelyard.serving.grpc.connection import Connection
from modelyard.serving.grpc.messages import message
from modelyard.serving.http.accepting import Listener

if TYPE_CHECKING:
    from modelyard.serving.app import App
    from modelyard.serving.http.tls import Tls

__all__ = ["Port"]


class Port:
    """A listening socket for gRPC.

    Args:
        app: What answers on the first port, and here.
        sock: The socket.
        others: Those of other processes on the same port.
        tls: Certificates that offer HTTP/2; none: it speaks without TLS.

    Attributes:
        connections: Connections that are open.
    """

    def __init__(self, app: App, sock: socket.socket, tls: Tls | None, others: Sequence[socket.socket] = ()) -> None:
        self._calls = Calls(app)
        self._sock = sock
        self._others = others
        self._tls = tls
        self._listener: Listener | None = None
        self.connections = self._calls.connections
        # Made before anybody waits for it.
        for name in ("ModelInferRequest", "ModelInferResponse"):
            message(name)

    def open(self) -> None:
        """Take connections from now on, in the loop that runs."""
        context = self._tls.context if self._tls is not None else None
        self._listener = Listener(
            self._sock,
            lambda: Connection(self._calls),
            others=self._others,
            context=context,
            handshake=self._calls.limits.header_seconds,
        )

    def look(self) -> None:
        """Cut what takes too long, and look at the certificates; call it every second or so."""
        now = time.monotonic()
        for connection in list(self.connections):
            connection.overdue(now, self._calls.limits)
        if self._tls is not None:
            self._tls.look()

    async def close(self) -> None:
        """Take no connection any more, once those are open that wait."""
        if self._listener is not None:
            await self._listener.close()
