"""Receive webhooks inside the daemon, as long as there is a trigger that wants them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from modelyard._kit.ports import listen
from modelyard.automation.base import Trigger
from modelyard.automation.notes import Say, note

if TYPE_CHECKING:
    import uvicorn

    from modelyard.automation.hooks import Hooks

__all__ = ["Receiver"]

_BACKLOG = 256
_DRAIN = 5


class Receiver:
    """A server that comes and goes with the webhooks of a project.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        project: Name of the project.
        say: Takes what happens.
    """

    def __init__(self, host: str, port: int, project: str, say: Say) -> None:
        self._host = host
        self._port = port
        self._project = project
        self._say = say
        self._app: Hooks | None = None
        self._sock: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.address = ""

    def bind(self, triggers: Iterable[Trigger]) -> None:
        """Listen, if one of these triggers wants it; what comes waits until it is served.

        Raises:
            ServeError: The address cannot be listened on.
        """
        if self._server is None and self._sock is None and any(trigger.kind == "webhook" for trigger in triggers):
            self._sock = listen(self._host, self._port, backlog=_BACKLOG)

    async def serve(self, triggers: Iterable[Trigger]) -> None:
        """Take the deliveries of these triggers from now on, and those of no other.

        Raises:
            ServeError: The address cannot be listened on.
        """
        receivers = [trigger for trigger in triggers if trigger.kind == "webhook"]
        if not receivers:
            await self._stop()
            return
        self.bind(receivers)
        from modelyard.automation.hooks import app

        self._app = app(receivers)  # type: ignore[arg-type]
        if self._sock is not None:
            sock, self._sock = self._sock, None
            self._start(sock)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        assert self._app is not None  # noqa: S101 - set before the server is started
        await self._app(scope, receive, send)

    def _start(self, sock: socket.socket) -> None:
        import uvicorn

        class Server(uvicorn.Server):
            @contextmanager
            def capture_signals(self) -> Iterator[None]:
                """Leave the signals to the daemon."""
                yield

        config = uvicorn.Config(
            self._answer,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_DRAIN,
        )
        port = sock.getsockname()[1]
        self.address = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}/hooks/"
        self._server = Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]))
        self._say(note("ready", f"webhooks are received at {self.address}NAME", name="hooks", project=self._project))

    async def _stop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        server, task = self._server, self._task
        self._server = self._task = None
        self.address = ""
        if server is not None and task is not None:
            server.should_exit = True
            await task
