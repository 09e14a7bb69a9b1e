"""The second port of a server: takes connections that speak gRPC, and ends them with the first one's."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

from modelyard.serving.grpc.answers import Calls
from modelyard.serving.grpc.connection import Connection
from modelyard.serving.grpc.messages import message

if TYPE_CHECKING:
    from modelyard.serving.app import App
    from modelyard.serving.http.tls import Tls

__all__ = ["Port"]


class Port:
    """A listening socket for gRPC.

    Args:
        app: What answers on the first port, and here.
        sock: The socket.
        tls: Certificates that offer HTTP/2; none: it speaks without TLS.

    Attributes:
        connections: Connections that are open.
    """

    def __init__(self, app: App, sock: socket.socket, tls: Tls | None) -> None:
        self._calls = Calls(app)
        self._sock = sock
        self._tls = tls
        self._server: asyncio.Server | None = None
        self.connections = self._calls.connections
        # Made before anybody waits for it.
        for name in ("ModelInferRequest", "ModelInferResponse"):
            message(name)

    async def open(self) -> None:
        """Take connections."""
        limits = self._calls.limits
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._calls),
            sock=self._sock,
            backlog=2048,
            ssl=self._tls.context if self._tls is not None else None,
            ssl_handshake_timeout=limits.header_seconds if self._tls is not None else None,
        )

    def look(self) -> None:
        """Cut what takes too long, and look at the certificates; call it every second or so."""
        now = time.monotonic()
        for connection in list(self.connections):
            connection.overdue(now, self._calls.limits)
        if self._tls is not None:
            self._tls.look()

    def close(self) -> None:
        """Take no connection any more."""
        if self._server is not None:
            self._server.close()
