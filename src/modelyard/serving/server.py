"""Bind the port, say so, answer until SIGTERM, drain."""

from __future__ import annotations

import gc
import ipaddress
import logging
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import short
from modelyard._kit.errors import ServeError
from modelyard._kit.places import log_path
from modelyard._kit.ports import listen
from modelyard.inference import open_bundle
from modelyard.security.keys import trusted_keys
from modelyard.security.tokens import TokenBook
from modelyard.serving.app import App
from modelyard.serving.limits import Limits
from modelyard.serving.log import RequestLog
from modelyard.serving.service import Service

if TYPE_CHECKING:
    import uvicorn

__all__ = ["Settings", "serve"]

_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server process is told.

    Attributes:
        bundle: Folder of the sealed bundle.
        project: Folder of the project: its keys, tokens and request log.
        endpoint: Name under which the model is served; the model's own by default.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        roles: Roles that may ask for predictions, of those that may at all; none named means all of them.
        limits: Limits.
    """

    bundle: Path
    project: Path
    endpoint: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    roles: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code: 0 when all that was answered is logged.

    Raises:
        Tampered: The bundle is not what its seal says.
        ServeError: The port is taken, or requests cannot be logged.
    """
    bundle = open_bundle(settings.bundle, trusted=trusted_keys(settings.project))
    endpoint = settings.endpoint or bundle.version.name
    if not _ENDPOINT.fullmatch(endpoint):
        raise ServeError(
            "endpoint-name",
            f"`{endpoint}` cannot be the name of an endpoint",
            hint="use letters, digits, `.`, `_`, `-`",
        )
    tokens = TokenBook(settings.project)
    sock = listen(settings.host, settings.port, backlog=2048)
    log = RequestLog(log_path(settings.project, endpoint), backlog=settings.limits.backlog)
    service = Service(bundle, endpoint, log, settings.limits)
    service.warm()
    # What lives now lives to the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # The log's thread must not keep the event loop waiting for long.
    sys.setswitchinterval(0.001)
    try:
        app = App(service, tokens, settings.roles)
        _server(app, service, lambda: _say_ready(sock, settings.host, service)).run(sockets=[sock])
    finally:
        service.close()
        lost = log.close(seconds=settings.limits.drain_seconds)
    if lost:
        _say(f"error[log-lost]: {lost} answered rows could not be logged: {log.trouble}")
        return 3
    _say(f"stopped endpoint={endpoint} answered={service.answered} logged={log.logged}")
    return 0


def _server(app: App, service: Service, ready: Callable[[], None]) -> uvicorn.Server:
    import uvicorn

    from modelyard.serving.wire import guarded, sweep

    limits = service.limits

    class Server(uvicorn.Server):
        """uvicorn's server with our clock on connections and a SIGTERM that is no error."""

        ticks = 0

        async def on_tick(self, counter: int) -> bool:
            self.ticks += 1
            if self.ticks % 10 == 0:
                sweep(self.server_state.connections, limits)
            return await super().on_tick(counter)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            service.draining = True
            await super().shutdown(sockets)

        def handle_exit(self, sig: int, frame: Any) -> None:
            super().handle_exit(sig, frame)
            # uvicorn would raise the signal again at the end; we end by ourselves, with our own exit code.
            self._captured_signals.clear()

    logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn.error").propagate = False
    config = uvicorn.Config(
        app,
        http=guarded(limits),
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.keep_alive,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=int(limits.drain_seconds),
    )
    return Server(config)


def _say_ready(sock: socket.socket, host: str, service: Service) -> None:
    """Write the one line that says that requests are taken, and where."""
    port = sock.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    _say(f"ready http://{shown}:{port} endpoint={service.endpoint} model={short(service.version.digest)}")
    if not _loopback(host):
        _say(f"note: {host} can be reached from other machines and speaks plain HTTP; put TLS before it")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
