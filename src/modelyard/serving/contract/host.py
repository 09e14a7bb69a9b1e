"""The real routes over a bundle on a port of this machine, for as long as a question takes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from modelyard._kit.ports import listen
from modelyard.inference import Bundle
from modelyard.security.roles import ROLES
from modelyard.security.tokens import TokenBook, add_token
from modelyard.serving.app import App
from modelyard.serving.endpoint import Endpoint
from modelyard.serving.guards.policy import Access, Policy
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.sweep import sweep
from modelyard.serving.limits import Limits
from modelyard.serving.models import Models
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.service import Service

__all__ = ["Host", "quiet"]

_HOST = "127.0.0.1"


def quiet(limits: Limits) -> Limits:
    """Return limits without what reaches beyond this process: no provider of identities, no budgets, no log lines.

    What is asked is made up, so no alarm is raised either, and nobody is suspected of copying the model.
    """
    told = limits.policy
    guards = told.guards and msgspec.structs.replace(told.guards, alarm=None, extraction=None)
    policy = Policy(guards=guards, access=Access(show=told.access.show, log="off"), project=told.project)
    return replace(limits, per_minute=0, policy=policy)


class Host:
    """A server in a thread: everything that answers is the server's own; its log and tokens lie in a folder that goes.

    Args:
        bundle: The bundle that answers.
        endpoint: Name under which it does.
        limits: Limits, with the guards.
        roles: Roles that may ask for predictions, of those that may at all; none named means all of them.
        port: Port on the loopback; 0 takes a free one.
        tokens: Makes who is known, of a folder; by default there is one token a role.
        connection: Makes a connection.

    Attributes:
        url: Where it answers, once entered.
        tokens: Role -> its token.

    Raises:
        ServeError: The port is taken, or the guards do not suit the model.
    """

    def __init__(
        self,
        bundle: Bundle,
        endpoint: str,
        limits: Limits,
        *,
        roles: Collection[str] = (),
        port: int = 0,
        tokens: Callable[[Path], TokenBook] | None = None,
        connection: Callable[[App], Connection] = Connection,
    ) -> None:
        self._bundle, self._endpoint = bundle, endpoint
        self._limits = quiet(limits)
        self._roles = roles
        self._port = port
        self._book = tokens
        self._connection = connection
        self._thread: threading.Thread | None = None
        self.url = ""
        self.tokens: dict[str, str] = {}

    def __enter__(self) -> Host:
        """Open the port."""
        self._sock = listen(_HOST, self._port, backlog=128)
        self._folder = Path(tempfile.mkdtemp(prefix="modelyard-"))
        try:
            self._log = RequestLog(self._folder / "requests.db")
            service = Service(self._bundle, self._endpoint, self._log, self._limits)
            service.warm()
            if self._book is None:
                self.tokens = {role: add_token(self._folder, role, role) for role in ROLES}
            book = (self._book or TokenBook)(self._folder)
            self._app = App([Endpoint(Models(service), self._limits, book, self._roles)], self._limits)
        except BaseException:
            self._sock.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._loop = asyncio.new_event_loop()
        self._told = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._answer(),), daemon=True)
        self._thread.start()
        self.url = f"http://{_HOST}:{self._sock.getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the port, and leave nothing behind."""
        assert self._thread is not None  # noqa: S101 - it was entered
        self._loop.call_soon_threadsafe(self._told.set)
        self._thread.join(10)
        self._loop.close()
        self._app.first.close()
        for service in self._app.first.models:
            service.close()
        self._log.close(seconds=5)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _answer(self) -> None:
        """Answer until told."""
        app = self._app
        make: Callable[[], Any] = partial(self._connection, app)
        server = await self._loop.create_server(make, sock=self._sock, backlog=128)
        while not self._told.is_set():
            try:
                async with asyncio.timeout(1.0):
                    await self._told.wait()
            except TimeoutError:
                sweep(app.connections, app.limits)
        server.close()
        for connection in list(app.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
