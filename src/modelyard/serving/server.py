"""Bind the port, say so, answer until SIGTERM, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import short
from modelyard._kit.errors import ModelyardError, ServeError
from modelyard._kit.hearing import Ear
from modelyard._kit.ports import listen, listen_beside
from modelyard.inference.kernels import compiled
from modelyard.serving.app import App
from modelyard.serving.board import Board
from modelyard.serving.ending import drain
from modelyard.serving.http.accepting import BACKLOG, OPENING, Listener
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.sweep import sweep
from modelyard.serving.http.tls import Tls
from modelyard.serving.limits import Limits
from modelyard.serving.opened import Opened, Told
from modelyard.serving.supervisor import Supervisor, checked
from modelyard.serving.told import Voice, say, speak_for, speaking

if TYPE_CHECKING:
    from modelyard.serving.grpc.port import Port

__all__ = ["Settings", "serve"]

# Files of a server beside its connections: the log, the model, the ledger.
_FILES = 512
# Seconds after which a Ctrl-C is another one.
_AGAIN = 0.25
# Seconds to end all beside connections and logs: handshakes, what follows the ledger, a shadow, a last write.
_CLOSING = 20.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What one server process is told.

    Attributes:
        endpoints: What answers; a request that names no model is the first one's.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        tls_cert: Certificate of the server, in PEM; none: it speaks plain HTTP.
        tls_key: Its private key.
        client_ca: CAs of the certificates that clients must have; none: they need not.
        grpc_port: Port for gRPC, 0 takes a free one; none: there is none.
        processes: Processes that share the port; what one token may ask for in a minute is shared out among them.
    """

    endpoints: tuple[Told, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    processes: int = 1
    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    grpc_port: int | None = None

    def tls(self, *protocols: str) -> Tls | None:
        """Return the certificates, if there are any.

        Raises:
            ServeError: One of them is missing, or cannot be used.
        """
        if self.tls_cert is None and self.tls_key is None and self.client_ca is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            message = "TLS needs a certificate and its key"
            raise ServeError("tls-unusable", message, hint="give --tls-cert and --tls-key")
        return Tls(self.tls_cert, self.tls_key, self.client_ca, protocols)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code: 0 when all that was answered is logged.

    Raises:
        Tampered: A bundle is not what its seal says.
        ServeError: The port is taken, requests cannot be logged, or two endpoints have one name.
    """
    if checked(settings.processes) == 1:
        return _answer(settings)
    named = []
    for told in settings.endpoints:
        limits = told.limits
        share = -(-limits.per_minute // settings.processes)
        limits = replace(limits, per_minute=share, policy=limits.policy.shared(settings.processes))
        with _opening(settings, told):
            name = told.name(None if told.follows else told.open())
        named.append(replace(told, endpoint=name, limits=limits))
    _check_names([told.endpoint for told in named])
    speak_for(Voice.of(named[0].project, named[0].endpoint, named[0].trace))
    ports = _ports(settings)
    if settings.grpc_port is not None:
        # What is imported before they are forked is shared by all of them.
        import_module("modelyard.serving.grpc.port")
    one = replace(settings, endpoints=tuple(named))
    boards = [Board(settings.processes) for _ in named]

    def work(place: int, tell: Callable[[Sequence[str]], object]) -> int:
        # Its own sockets come first.
        return _answer(one, [[*port[place:], *port[:place]] for port in ports], tell, boards)

    # What was made so far is shared by all of them.
    gc.collect()
    gc.freeze()
    ready = partial(_say_ready, ports, one)
    return Supervisor(work, list(zip(*ports, strict=True)), ready, patience=_patience(named[0].limits)).run()


def _check_names(names: list[str]) -> None:
    """Refuse two endpoints of one name."""
    for name in names:
        if names.count(name) > 1:
            hint = "give one of them another with `deploy.endpoint`"
            raise ServeError("endpoint-twice", f"two endpoints have the name `{name}`", hint=hint)


@contextlib.contextmanager
def _opening(settings: Settings, told: Told) -> Iterator[None]:
    """Where there are several, say which of them cannot be opened: the error need not name it."""
    try:
        yield
    except ModelyardError:
        if len(settings.endpoints) > 1:
            which = f"the endpoint {told.endpoint}".strip()
            with speaking(Voice.of(told.project, told.endpoint, told.trace)):
                say(f"error: {which} of `{told.project}` cannot be opened, so none is served", level="error")
        raise


def _ports(settings: Settings) -> list[list[socket.socket]]:
    """Return the sockets of each port, one for each process: they outlive it, and so does who waits there."""
    asked = [(settings.port, "--port")]
    if settings.grpc_port is not None:
        asked.append((settings.grpc_port, "--grpc-port"))
    if settings.processes == 1:
        return [[listen(settings.host, port, backlog=BACKLOG, flag=flag)] for port, flag in asked]
    count = settings.processes
    return [listen_beside(settings.host, port, count, backlog=BACKLOG, flag=flag) for port, flag in asked]


def _patience(limits: Limits) -> float:
    """Return the seconds that a process may take to end: for its connections, then its logs, and for all else."""
    return 2 * limits.drain_seconds + _CLOSING


def _answer(
    settings: Settings,
    ports: list[list[socket.socket]] | None = None,
    tell: Callable[[Sequence[str]], object] | None = None,
    boards: Sequence[Board] = (),
) -> int:
    """Answer in this process; one of several is given sockets that were made before, and tells once it answers."""
    limits = settings.endpoints[0].limits
    _hold_files(limits.connections + (2 * OPENING if settings.tls_cert is not None else 0))
    first, *second = ports = ports or _ports(settings)
    opened: list[Opened] = []
    ears: list[Ear] = []
    try:
        for at, told in enumerate(settings.endpoints):
            with _opening(settings, told):
                opened.append(Opened(told, boards[at] if boards else None))
            _check_names([one.endpoint.name for one in opened])
        speak_for(opened[0].voice)
        names = ", ".join(one.endpoint.name for one in opened)
        ears += [Ear(project, f"server of {names}") for project in {told.project: None for told in settings.endpoints}]
        # What lives now lives to the end: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        # The logs' threads must not keep the event loop waiting for long.
        sys.setswitchinterval(0.001)
        app = App([one.endpoint for one in opened], limits)
        for one in opened:
            one.follow(app.heads.forget)
        say_ready = tell or partial(_say_ready, ports, settings)

        def ready() -> None:
            say_ready([one.ready for one in opened])

        _run(_answer_until_told(app, opened, first, ready, settings.tls(), _second(app, second, settings)))
    finally:
        # Side by side: each may take its time, and who waits for the end waits for one of them.
        with ThreadPoolExecutor(max(1, len(opened))) as pool:
            closed = [pool.submit(one.close) for one in opened]
        for each in closed:
            each.result()
        for ear in ears:
            ear.close()
    which = f" process={os.getpid()}" if tell is not None else ""
    return max([one.last_words(which) for one in opened])


class _Signals:
    """What the signals have said.

    Attributes:
        end: The server shall end, and answer what is under way.
        at_once: It was told so once more by a Ctrl-C, and does not wait for that.
    """

    def __init__(self) -> None:
        self.end, self.at_once = asyncio.Event(), asyncio.Event()
        self._first = math.inf

    def hear(self, number: int, now: float) -> None:
        """Take a signal; one Ctrl-C may come twice, from the terminal and from the process that started this one."""
        self._first = min(self._first, now)
        self.end.set()
        if number == signal.SIGINT and now > self._first + _AGAIN:
            self.at_once.set()


async def _answer_until_told(
    app: App,
    opened: Sequence[Opened],
    sockets: Sequence[socket.socket],
    ready: Callable[[], object],
    tls: Tls | None,
    port: Port | None,
) -> None:
    """Take connections until SIGTERM or SIGINT, then end what is under way; not so after a second Ctrl-C."""
    loop = asyncio.get_running_loop()
    told = _Signals()

    def tell(number: int, frame: object) -> None:
        loop.call_soon_threadsafe(told.hear, number, loop.time())

    # Not the loop's own handlers, which are gone with it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    context = tls.context if tls is not None else None
    sock, *others = sockets
    handshake = app.limits.header_seconds
    listener = Listener(sock, lambda: Connection(app), others=others, context=context, handshake=handshake)
    if port is not None:
        port.open()
    for each in opened:
        each.start(loop)
    ready()
    while not told.end.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await told.end.wait()
        sweep(app.connections, app.limits)
        for one in (app, tls, port):
            if one is not None:
                one.look()
    app.draining = True
    for each in opened:
        each.endpoint.models.drain()
    await asyncio.gather(*(one.close() for one in (listener, port) if one is not None))
    await drain(app.connections, port.connections if port is not None else (), app.limits.drain_seconds, told.at_once)
    for each in opened:
        each.endpoint.close_log()
    for number in (signal.SIGTERM, signal.SIGINT):
        # An interpreter that ends puts every other handler back to the default, which would kill it in the middle.
        signal.signal(number, signal.SIG_IGN)


def _second(app: App, ports: list[list[socket.socket]], settings: Settings) -> Port | None:
    """Return the port for gRPC, if there is one; what it takes is imported for it only."""
    if not ports:
        return None
    from modelyard.serving.grpc.port import Port

    [[sock, *others]] = ports
    return Port(app, sock, settings.tls("h2"), others)


def _hold_files(connections: int) -> None:
    """Have room for as many connections as are taken; a shell gives 1,024 files, and one more is cut unanswered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _FILES
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # not everywhere may it be raised
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard >= 0 else wanted, hard))


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # not on every system
        asyncio.run(work)
    else:
        uvloop.run(work)


def _say_ready(ports: list[list[socket.socket]], settings: Settings, said: Sequence[str]) -> None:
    """Write a line for each endpoint that says that requests are taken, and where."""
    host = settings.host
    port, *calls = [sockets[0].getsockname()[1] for sockets in ports]
    shown = f"[{host}]" if ":" in host else host
    more = f" processes={settings.processes}" if settings.processes > 1 else ""
    more += "".join(f" grpc={shown}:{one}" for one in calls)
    # Whoever finds it slower than expected should not have to look for the reason.
    more += "" if compiled() else " kernels=python"
    scheme = "http" if settings.tls_cert is None else "https"
    for told, one in zip(settings.endpoints, said, strict=True):
        name, digest, trace = one.split(",")
        # The first answers for requests that name no model, too.
        path = "" if told is settings.endpoints[0] else f"/models/{name}"
        traced = f" trace={trace}" if trace else ""
        with speaking(Voice.of(told.project, name, trace)):
            say(f"ready {scheme}://{shown}:{port}{path} endpoint={name} model={short(digest)}{more}{traced}")
    if not _loopback(host) and settings.tls_cert is None:
        say(f"note: {host} can be reached from other machines and speaks plain HTTP; put TLS before it")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
