"""Bind the port, say so, answer until SIGTERM, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import math
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import short
from modelyard._kit.errors import ServeError
from modelyard._kit.hearing import Ear
from modelyard._kit.places import log_path
from modelyard._kit.ports import listen, listen_beside
from modelyard._kit.text import plural
from modelyard.inference import Bundle, open_bundle
from modelyard.inference.kernels import compiled
from modelyard.records import Alias
from modelyard.security.keys import trusted_keys
from modelyard.security.tokens import TokenBook
from modelyard.serving.app import App
from modelyard.serving.board import Board
from modelyard.serving.http.accepting import BACKLOG, OPENING, Listener
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.sweep import sweep
from modelyard.serving.http.tls import Tls
from modelyard.serving.limits import Limits
from modelyard.serving.models import Models
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.service import Service
from modelyard.serving.supervisor import Supervisor, checked
from modelyard.serving.told import say, speak_for
from modelyard.serving.versions.following import Follower
from modelyard.serving.versions.rollout import Plan
from modelyard.serving.versions.stage import Stage

if TYPE_CHECKING:
    from modelyard.serving.grpc.port import Port

__all__ = ["Settings", "serve"]

_TRACE = re.compile(r"[0-9a-f]{32}")
# Files of a server beside its connections: the log, the model, the ledger.
_FILES = 512
# Turns of the loop in which what lies unread on a connection is read: one to ask the system, one to hear of it.
_TURNS = 2
# Seconds of waiting for what is under way of which nothing is said.
_QUIET = 1.0
# Seconds after which a Ctrl-C is another one.
_AGAIN = 0.25
# Seconds to end all beside connections and logs: handshakes, what follows the ledger, a shadow, a last write.
_CLOSING = 20.0
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
        trace: Id that ties the deployment to the run that made the model; kept with each request.
        follow: Alias whose moves in the ledger are followed; none: the bundle is served to the end.
        store: Address of the store with the ledger; empty: the folder of the project.
        p99: Seconds within which a version has to give 99 of 100 answers before it goes live; 0 means any.
        plan: How a challenger is tried beside the champion.
        tls_cert: Certificate of the server, in PEM; none: it speaks plain HTTP.
        tls_key: Its private key.
        client_ca: CAs of the certificates that clients must have; none: they need not.
        grpc_port: Port for gRPC, 0 takes a free one; none: there is none.
        processes: Processes that share the port; what one token may ask for in a minute is shared out among them.
    """

    bundle: Path
    project: Path
    endpoint: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    roles: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    trace: str = ""
    follow: Alias | None = None
    store: str = ""
    p99: float = 0.0
    processes: int = 1
    plan: Plan = Plan()  # noqa: RUF009 - it is frozen
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
        Tampered: The bundle is not what its seal says.
        ServeError: The port is taken, or requests cannot be logged.
    """
    if checked(settings.processes) == 1:
        return _answer(settings)
    endpoint = _endpoint(settings, None if _follows(settings) else _open(settings))
    speak_for(settings.project, endpoint, settings.trace)
    limits = settings.limits
    share = -(-limits.per_minute // settings.processes)
    ports = _ports(settings)
    if settings.grpc_port is not None:
        # What is imported before they are forked is shared by all of them.
        import_module("modelyard.serving.grpc.port")
    limits = replace(limits, per_minute=share, policy=limits.policy.shared(settings.processes))
    one = replace(settings, endpoint=endpoint, limits=limits)
    board = Board(settings.processes)

    def work(place: int, tell: Callable[[str, str], object]) -> int:
        # Its own sockets come first.
        return _answer(one, [[*port[place:], *port[:place]] for port in ports], tell, board)

    # What was made so far is shared by all of them.
    gc.collect()
    gc.freeze()
    ready = partial(_say_ready, ports, one, endpoint)
    return Supervisor(work, list(zip(*ports, strict=True)), ready, patience=_patience(limits)).run()


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


def _follows(settings: Settings) -> bool:
    return bool(settings.follow and settings.endpoint)


def _open(settings: Settings) -> Bundle:
    return open_bundle(settings.bundle, trusted=trusted_keys(settings.project))


def _endpoint(settings: Settings, bundle: Bundle | None) -> str:
    endpoint = settings.endpoint or (bundle.version.name if bundle is not None else "")
    if not _ENDPOINT.fullmatch(endpoint):
        raise ServeError(
            "endpoint-name",
            f"`{endpoint}` cannot be the name of an endpoint",
            hint="use letters, digits, `.`, `_`, `-`",
        )
    if settings.trace and not _TRACE.fullmatch(settings.trace):
        raise ServeError("trace-form", f"`{settings.trace}` is no trace", hint="a trace has 32 hex digits")
    return endpoint


def _answer(
    settings: Settings,
    ports: list[list[socket.socket]] | None = None,
    tell: Callable[[str, str], object] | None = None,
    board: Board | None = None,
) -> int:
    """Answer in this process; one of several is given sockets that were made before, and tells once it answers."""
    bundle = None if _follows(settings) else _open(settings)
    endpoint = _endpoint(settings, bundle)
    speak_for(settings.project, endpoint, settings.trace)
    tokens = TokenBook(settings.project, every=0.5)
    _hold_files(settings.limits.connections + (2 * OPENING if settings.tls_cert is not None else 0))
    first, *second = ports = ports or _ports(settings)
    log = RequestLog(log_path(settings.project, endpoint), backlog=settings.limits.backlog)
    stage = Stage(settings.project, endpoint, log, settings.limits, settings.p99)
    # Whoever starts again after a while must not begin with what was the champion then.
    service = stage.newest(settings.follow, settings.store) if settings.follow and settings.endpoint else None
    if service is None:
        service = Service(bundle or _open(settings), endpoint, log, settings.limits, trace=settings.trace)
        service.warm()
    speak_for(settings.project, endpoint, service.trace)
    ear = Ear(settings.project, f"server of {endpoint}")
    # What lives now lives to the end: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # The log's thread must not keep the event loop waiting for long.
    sys.setswitchinterval(0.001)
    models = Models(service)
    if board is not None:
        board.join()
        models.board = board
    app = App(models, settings.limits, tokens, settings.roles)
    follower = None
    if settings.follow:
        follower = Follower(stage, models, app.heads.forget, settings.follow, settings.store, settings.plan)
        if models.bell is not None:
            models.bell.follow(follower.later)
        follower.begin()
    try:
        say_ready = tell or partial(_say_ready, ports, settings, endpoint)
        ready = partial(say_ready, models.default.version.digest, models.default.trace)
        _run(_answer_until_told(app, follower, first, ready, settings.tls(), _second(app, second, settings)))
    finally:
        app.callers.close()
        app.models.feedback.close()
        if follower is not None:
            follower.close()
        for one in models:
            one.close()
        lost = log.close(seconds=settings.limits.drain_seconds)
        ear.close()
    if lost:
        say(
            f"error[log-lost]: {plural(lost, 'answered row')} could not be logged: {log.trouble or 'see above'}",
            level="error",
        )
        return 3
    which = f" process={os.getpid()}" if tell is not None else ""
    # Requests, their rows, and where each row is: in the log, apart from it, or in neither by `deploy.requests.sample`.
    told = f"requests={models.answered} rows={models.rows} logged={log.logged} held={log.held}"
    passed = f" passed={log.passed}" if log.passed else ""
    say(f"stopped endpoint={endpoint}{which} {told}{passed}")
    return 0


class _Told:
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
    follower: Follower | None,
    sockets: Sequence[socket.socket],
    ready: Callable[[], object],
    tls: Tls | None,
    port: Port | None,
) -> None:
    """Take connections until SIGTERM or SIGINT, then end what is under way; not so after a second Ctrl-C."""
    loop = asyncio.get_running_loop()
    told = _Told()

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
    if follower is not None:
        follower.start(loop)
    ready()
    while not told.end.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told.end.wait(), 1.0)
        sweep(app.connections, app.limits)
        for one in (app, tls, port):
            if one is not None:
                one.look()
    app.draining = True
    for service in app.models:
        service.draining = True
    await asyncio.gather(*(one.close() for one in (listener, port) if one is not None))
    places = [app.connections] if port is None else [app.connections, port.connections]
    await _drain(places, app.limits.drain_seconds, told.at_once)
    app.access.close()
    for number in (signal.SIGTERM, signal.SIGINT):
        # An interpreter that ends puts every other handler back to the default, which would kill it in the middle.
        signal.signal(number, signal.SIG_IGN)


async def _drain(places: list[set[Any]], seconds: float, at_once: asyncio.Event) -> None:
    """End every connection once nothing is under way on it, and after so many seconds, or at once, whatever is."""
    loop = asyncio.get_running_loop()
    until, quiet = loop.time() + seconds, loop.time() + _QUIET
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    while any(places) and loop.time() < until and not at_once.is_set():
        if loop.time() > quiet:
            quiet = math.inf
            left = plural(sum(map(len, places)), "connection")
            say(f"{left} with something under way: waits {seconds:g} s at most, Ctrl-C once more ends it at once")
        for connection in [one for place in places for one in place]:
            connection.drain()
        await asyncio.sleep(0.01)
    for connection in [one for place in places for one in place]:
        connection.transport.abort()


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


def _say_ready(ports: list[list[socket.socket]], settings: Settings, endpoint: str, digest: str, trace: str) -> None:
    """Write the one line that says that requests are taken, and where."""
    host = settings.host
    port, *calls = [sockets[0].getsockname()[1] for sockets in ports]
    shown = f"[{host}]" if ":" in host else host
    more = f" processes={settings.processes}" if settings.processes > 1 else ""
    more += "".join(f" grpc={shown}:{one}" for one in calls)
    # Whoever finds it slower than expected should not have to look for the reason.
    more += "" if compiled() else " kernels=python"
    more += f" trace={trace}" if trace else ""
    scheme = "http" if settings.tls_cert is None else "https"
    say(f"ready {scheme}://{shown}:{port} endpoint={endpoint} model={short(digest)}{more}")
    if not _loopback(host) and settings.tls_cert is None:
        say(f"note: {host} can be reached from other machines and speaks plain HTTP; put TLS before it")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
