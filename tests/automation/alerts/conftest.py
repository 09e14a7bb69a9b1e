"""What the tests of alerts share: a project, a clock moved by hand, real servers, and events as runs write them."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.automation.alerts.routes import Target
from modelyard.automation.alerts.sender import Sender
from modelyard.automation.alerts.text import Message
from modelyard.automation.alerts.undelivered import Undelivered
from modelyard.records import Draft, Event
from modelyard.spec import Spec, load
from modelyard.store import LocalStore

NOON = 1_790_000_000.0 // 86_400 * 86_400 + 12 * 3600


class Hand:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Spec]:
    """Write a declaration with own steps and load it."""

    def make(alerts: str, *, steps: str = "", more: str = "", name: str = "income") -> Spec:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        code = steps or "def fit() -> int:\n    return 1\n"
        (folder / "steps.py").write_text(textwrap.dedent(code), encoding="utf-8")
        names = [line.partition("(")[0][4:] for line in textwrap.dedent(code).splitlines() if line.startswith("def ")]
        declared = "\n".join(f"  {step}: {{function: 'steps.py:{step}'}}" for step in names)
        text = f"project: {name}\nretries: 0\nsteps:\n{declared}\n{textwrap.dedent(more)}\n{textwrap.dedent(alerts)}\n"
        (folder / "modelyard.yaml").write_text(text, encoding="utf-8")
        return load(folder / "modelyard.yaml")

    return make


@pytest.fixture
def store(tmp_path: Path, clock: Hand) -> Iterator[LocalStore]:
    folder = tmp_path / "project"
    folder.mkdir(exist_ok=True)
    with LocalStore(folder, clock=clock) as opened:
        yield opened


class Story:
    """Writes what runs write."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def write(self, kind: str, run: str = "run-1", step: str = "", **payload: Any) -> Event:
        made = msgspec.convert({"kind": kind, "run": run, "step": step, "payload": payload}, Draft)
        return self._store.ledger.append(made)[0]

    def start(self, run: str = "run-1", **more: Any) -> Event:
        return self.write("run.started", run, project="income", trace="ab" * 16, **more)

    def done(self, step: str, run: str = "run-1", seconds: float = 1.0, **outputs: Any) -> Event:
        body = {"key": f"{run}/{step}", "outputs": outputs, "seconds": seconds, "made_of": {"code": "c"}}
        return self.write("step.finished", run, step, **body)

    def end(self, status: str = "succeeded", run: str = "run-1", reason: str = "") -> Event:
        return self.write("run.finished", run, status=status, reason=reason, result="r")

    def fail(self, run: str = "run-1", step: str = "fit", message: str = "no luck", code: str = "step-failed") -> Event:
        """Write a whole run that fails."""
        self.start(run)
        error = {"code": code, "message": message, "where": "steps.py:3", "hint": "look there", "trace": "..."}
        self.write("step.failed", run, step, key="k", error=error)
        return self.end("failed", run, message)

    def succeed(self, run: str = "run-2") -> Event:
        """Write a whole run that succeeds."""
        self.start(run)
        self.done("fit", run)
        return self.end("succeeded", run)

    def watch(self, *statuses: str, endpoint: str = "income") -> Event:
        results = [
            {"check": {"name": f"psi.c{n}"}, "status": status, "reason": f"c{n} moved"}
            for n, status in enumerate(statuses)
        ]
        return self.write(
            "watch.finished",
            "",
            endpoint=endpoint,
            model="m",
            window={"rows": 100, "from": 0, "to": 1},
            results=results,
        )


@pytest.fixture
def story(store: LocalStore) -> Story:
    return Story(store)


class Taken:
    """Takes messages instead of the targets; some of these may be down."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.messages: list[tuple[str, Message]] = []
        self.tried: list[tuple[str, str]] = []

    def __call__(self, target: Target, message: Message) -> str:
        self.tried.append((target.name, message.title))
        if target.name in self.down:
            raise Undelivered("nobody is there")
        self.messages.append((target.name, message))
        return "taken"

    def titles(self, target: str = "") -> list[str]:
        return [m.title.removeprefix("income: ") for name, m in self.messages if target in ("", name)]


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def sender(store: LocalStore, clock: Hand, taken: Taken) -> Callable[[Spec], Sender]:
    """Open a sender that hands over to `taken`."""

    def make(spec: Spec) -> Sender:
        return Sender(spec, store, clock=clock, make=lambda: taken, draw=lambda low, high: high)

    return make


class Web:
    """A web server on this machine that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        # While it is not set, requests are taken and not answered.
        self.held = threading.Event()
        self.held.set()
        # Statuses of the next answers; after them 200.
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def start(self) -> None:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                web.requests.append((dict(self.headers.items()), body))
                web.held.wait()
                self.send_response(web.answers.pop(0) if web.answers else 200)
                for name, value in web.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def bodies(self) -> list[Any]:
        return [msgspec.json.decode(body) for _, body in self.requests]


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    server.start()
    yield server
    server.stop()


class Post:
    """A mail server on this machine that keeps what it is sent."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Any] = []
        self.refused: set[str] = set()
        self.port = 0
        self.settings: dict[str, Any] = {}
        self._controller: Any = None
        self._connections: list[Any] = []

    def start(self) -> None:
        from aiosmtpd.controller import Controller

        connections = self._connections

        class Known(Controller):
            def factory(self) -> Any:
                connections.append(super().factory())
                return connections[-1]

        self._controller = Known(self, hostname="127.0.0.1", port=self.port or _free_port(), **self.settings)
        self._controller.start()
        self.port = self._controller.port

    def stop(self) -> None:
        if self._controller is None:
            return

        async def close() -> None:
            # The loop would be stopped before it has seen that callers are gone.
            while any(one.transport is not None for one in self._connections):
                for one in self._connections:
                    if one.transport is not None:
                        one.transport.close()
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(close(), self._controller.loop).result(30)
        self._controller.stop()
        self._controller = None

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802 - the name that the server calls
        if address in self.refused:
            return f"550 {address} is nobody"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        self.mails.append(message_from_bytes(envelope.content, policy=default))  # type: ignore[arg-type]
        return "250 taken"


def _free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def post() -> Iterator[Post]:
    server = Post()
    server.start()
    yield server
    server.stop()
