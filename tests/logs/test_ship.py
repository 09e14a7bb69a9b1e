"""Lines reach their sinks, all of them, also when a sink is down or the process is killed."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest

from modelyard._kit.errors import ModelyardError
from modelyard.logs import About, Line, logs_of
from modelyard.logs.files import segments
from modelyard.logs.ledger import Teller
from modelyard.logs.section import Logs
from modelyard.logs.ship import Shipper, shipping
from modelyard.logs.sinks import NotTaken, Shipped, SystemLog, Web, sinks_of
from modelyard.records import Draft, Event, EventKind
from modelyard.store import LocalStore

ABOUT = About(trace="ab" * 16, run="run-1", step="train", attempt=1)


class Memory:
    """A sink that can be down, or take few lines at once."""

    def __init__(self) -> None:
        self.down = False
        self.most = 10_000
        self.lines: list[Shipped] = []
        self.offered = 0

    def send(self, lines: Sequence[Shipped]) -> None:
        self.offered += 1
        if self.down:
            raise NotTaken("down")
        if len(lines) > self.most:
            raise NotTaken("too much", smaller=True)
        self.lines += lines


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(tmp_path) as opened:
        yield opened


def say(store: LocalStore, *messages: str) -> None:
    logs_of(store.root).append(*(Line.of(ABOUT, time.time(), "stdout", m) for m in messages))


def shipper(store: LocalStore, sink: Memory, **given: Any) -> Shipper:
    return Shipper(store, Logs(), project="p", sinks={"memory": sink}, **given)


def sent(store: LocalStore, sink: Memory) -> int:
    """Hand over what there is; return what waits."""
    with shipper(store, sink) as one:
        return one.send_all()["memory"]


def messages(sink: Memory) -> list[str]:
    return [line.message for line in sink.lines if line.logger != "ledger"]


def test_a_new_sink_gets_what_comes_and_not_what_was(store: LocalStore) -> None:
    say(store, "before")
    sink = Memory()
    assert sent(store, sink) == 0
    say(store, "after")
    assert sent(store, sink) == 0
    assert messages(sink) == ["after"]
    assert sink.lines[0].run == "run-1"
    assert sink.lines[0].project == "p"


def test_a_sink_that_is_down_misses_nothing_and_takes_each_line_once(store: LocalStore) -> None:
    sink = Memory()
    sent(store, sink)
    sink.down = True
    for i in range(1200):
        say(store, str(i))
        if i % 400 == 0:
            assert sent(store, sink) == i + 1
    sink.down = False
    assert sent(store, sink) == 0
    assert messages(sink) == [str(i) for i in range(1200)]
    assert len({line.id for line in sink.lines}) == 1200


def test_events_of_the_ledger_are_told_with_the_trace_of_their_run(store: LocalStore) -> None:
    sink = Memory()
    sent(store, sink)
    body = {"project": "p", "trace": "cd" * 16, "fire": "fire-1"}
    error = {"code": "step-failed", "message": "no way", "where": "steps.py:3"}
    fire = {"id": "fire-1", "key": "k", "trigger": "nightly", "kind": "schedule", "due": 0.0, "trace": "cd" * 16}
    store.ledger.append(
        Draft(kind="fire.queued", actor="trigger:nightly", payload=fire),
        Draft(kind="run.started", run="run-2", actor="user:ana", payload=body),
        Draft(kind="step.failed", run="run-2", step="train", payload={"key": "", "error": error}),
    )
    sent(store, sink)
    told = [(line.event, line.level, line.message) for line in sink.lines]
    assert told == [
        ("fire.queued", "info", "trigger nightly (schedule), due 1970-01-01 00:00:00Z: a run is asked for"),
        ("run.started", "info", "run of p started by user:ana, asked for by fire-1"),
        ("step.failed", "error", "failed at steps.py:3: step-failed: no way"),
    ]
    assert {line.trace for line in sink.lines} == {"cd" * 16}
    assert {line.fire for line in sink.lines} == {"fire-1"}
    assert [line.id for line in sink.lines] == ["p/event-1", "p/event-2", "p/event-3"]


@pytest.mark.parametrize("kind", get_args(EventKind))
def test_an_event_of_any_kind_is_a_line_even_if_nothing_is_in_it(store: LocalStore, kind: EventKind) -> None:
    event = Event(kind=kind, seq=1, time=2.0, hash="", actor="runner", payload={})
    line = Teller(store.ledger).line(event)
    assert (line.time, line.event, line.logger) == (2.0, kind, "ledger")
    assert line.message


def test_a_sink_that_takes_few_lines_at_once_gets_few_at_once(store: LocalStore) -> None:
    sink = Memory()
    sink.most = 30
    sent(store, sink)
    say(store, *(str(i) for i in range(100)))
    assert sent(store, sink) == 0
    assert messages(sink) == [str(i) for i in range(100)]


def test_lines_written_to_an_older_file_meanwhile_are_not_missed(store: LocalStore) -> None:
    sink = Memory()
    sent(store, sink)
    say(store, "one")
    sent(store, sink)
    [first] = segments(store.root / ".modelyard" / "logs")
    first.with_name(first.name.replace(".000.", ".001.")).write_bytes(first.read_bytes().replace(b"one", b"two"))
    with first.open("ab") as late:
        late.write(first.read_bytes().replace(b"one", b"three"))
    sent(store, sink)
    assert messages(sink) == ["one", "three", "two"]


def test_what_was_deleted_before_it_was_taken_is_said(store: LocalStore) -> None:
    sink = Memory()
    sent(store, sink)
    sink.down = True
    say(store, "one", "two")
    sent(store, sink)
    [first] = segments(store.root / ".modelyard" / "logs")
    first.unlink()
    sink.down = False
    sent(store, sink)
    sent(store, sink)
    [line] = sink.lines
    assert line.level == "warning"
    assert "were deleted before memory took them" in line.message


def test_a_thread_hands_over_while_others_work_and_the_end_does_not_wait_for_a_dead_sink(store: LocalStore) -> None:
    works, dead = Memory(), Memory()
    dead.down = True
    one = Shipper(store, Logs(), project="p", sinks={"works": works, "dead": dead}, pause=0.01)
    with one:
        one.start()
        say(store, "during")
        until = time.monotonic() + 20
        while not (works.lines and one.trouble) and time.monotonic() < until:
            time.sleep(0.01)
        say(store, "last")
    assert messages(works) == ["during", "last"]
    assert one.trouble == {"dead": "down"}
    assert not dead.lines
    dead.down = False
    with Shipper(store, Logs(), project="p", sinks={"works": works, "dead": dead}) as later:
        assert later.send_all() == {"works": 0, "dead": 0}
    assert messages(dead) == ["during", "last"]
    assert messages(works) == ["during", "last"]


def test_one_process_at_a_time_hands_over_to_a_sink(store: LocalStore) -> None:
    first, second = Memory(), Memory()
    sent(store, first)
    with shipper(store, first) as one, one._senders[0].held() as ours:
        assert ours
        say(store, "once")
        with shipper(store, second) as two:
            assert two.send_all() == {"memory": 1}
        assert not second.lines


WRITER = """
import sys, time
from pathlib import Path
from modelyard.logs import About, Line, logs_of
from modelyard.logs.section import Logs
from modelyard.logs.ship import shipping
from modelyard.store import LocalStore

store = LocalStore(Path(sys.argv[1]))
with shipping(store, Logs(to=(sys.argv[2],)), project="p"):
    for i in range(10_000):
        logs_of(store.root).append(Line.of(About(run=sys.argv[3]), time.time(), "stdout", f"{sys.argv[3]}-{i}"))
        print(i, flush=True)
        time.sleep(0.001)
"""


class Server:
    """A real server on this machine that takes lines, answers as it is told, and can go away and come back."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self._server = self._listen(0)
        self.port = self._server.server_port

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/in"

    def _listen(self, port: int) -> HTTPServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.status == 200:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def down(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def up(self) -> None:
        self._server = self._listen(self.port)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for body in self.bodies for raw in body.splitlines()]


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    with contextlib.suppress(OSError):
        one.down()


@pytest.mark.slow
def test_a_sink_that_is_down_for_ten_seconds_over_a_kill_loses_nothing(store: LocalStore, server: Server) -> None:
    script = [sys.executable, "-c", WRITER, str(store.root), server.address]
    said = 0

    def run_for(name: str, seconds: float) -> int:
        with subprocess.Popen([*script, name], stdout=subprocess.PIPE, text=True) as writer:
            time.sleep(seconds)
            writer.send_signal(signal.SIGKILL)
            out, _ = writer.communicate(timeout=120)
        return len(out.splitlines())

    said += run_for("a", 3)
    server.down()
    said += run_for("b", 5)
    said += run_for("c", 5)
    server.up()
    said += run_for("d", 3)
    with Shipper(store, Logs(to=(server.address,)), project="p") as last:
        assert last.send_all() == {"127.0.0.1": 0}
    got = {line["message"] for line in server.lines}
    for name in "abcd":
        numbers = sorted(int(m.partition("-")[2]) for m in got if m.startswith(f"{name}-"))
        assert numbers == list(range(len(numbers)))
        assert numbers
    assert len(got) >= said


def test_a_web_address_gets_lines_of_json_with_the_token(
    store: LocalStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGS_TOKEN", "swordfish-7")
    settings = Logs(to=(server.address,), token="env:LOGS_TOKEN")
    with Shipper(store, settings, project="p") as one:
        one.send_all()
        say(store, "hello swordfish-7")
        assert one.send_all() == {"127.0.0.1": 0}
    [line] = server.lines
    assert line["message"] == "hello swordfish-7"  # whoever writes a line masks it; this one was written as it is
    assert line["trace"] == "ab" * 16
    assert server.headers[0]["Authorization"] == "Bearer swordfish-7"
    assert server.headers[0]["Content-Type"] == "application/x-ndjson"


@pytest.mark.parametrize(("status", "why"), [(500, "answered 500"), (302, "answered 302"), (403, "answered 403")])
def test_an_answer_that_is_not_yes_is_a_no(store: LocalStore, server: Server, status: int, why: str) -> None:
    server.status = status
    with Shipper(store, Logs(to=(server.address,)), project="p") as one:
        one.send_all()
        say(store, "kept")
        assert one.send_all() == {"127.0.0.1": 1}
        assert why in one.trouble["127.0.0.1"]
        server.status = 200
        assert one.send_all() == {"127.0.0.1": 0}
    assert [line["message"] for line in server.lines] == ["kept"]


def shipped(message: str) -> Shipped:
    return Shipped(id="1", project="p", host="h", time=0.5, logger="x", message=message, level="error")


def test_addresses_that_cannot_be_used_are_told_and_nothing_is_sent(tmp_path: Path) -> None:
    for address, token, why in (
        ("http://logs.example.org/in", None, "neither `https://`"),
        ("env:NOT_SET_ANYWHERE", None, "empty or not set"),
        ("file:gone.txt", None, "cannot be read"),
        ("http://127.0.0.1:9/in", "env:NOT_SET_ANYWHERE", "empty or not set"),
        ("http://127.0.0.1:9/in", None, "cannot be reached"),
    ):
        with pytest.raises(NotTaken, match=why):
            Web(address, token, tmp_path).send([shipped("m")])


def test_the_log_of_the_system_gets_rfc_5424(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taker:
        taker.bind(str(path))
        taker.settimeout(10)
        SystemLog(path).send([shipped("short"), shipped("x" * 20_000)])
        first, second = taker.recv(1 << 16).decode(), taker.recv(1 << 16).decode()
    assert first.startswith("<11>1 1970-01-01T00:00:00.500+00:00 h modelyard ")
    assert json.loads(first[first.index("{") :])["message"] == "short"
    assert json.loads(second[second.index("{") :])["message"].endswith("… (cut)")
    with pytest.raises(NotTaken, match="takes nothing"):
        SystemLog(tmp_path / "none").send([shipped("m")])


def test_names_of_sinks_tell_no_secret(tmp_path: Path) -> None:
    settings = Logs(to=("https://logs.example.org/a", "https://logs.example.org/b", "syslog", "env:LOG_SINK"))
    assert list(sinks_of(settings, tmp_path)) == ["logs.example.org", "logs.example.org-2", "syslog", "log-sink"]


def test_without_sinks_nothing_is_started_and_old_lines_go(store: LocalStore) -> None:
    old = store.root / ".modelyard" / "logs" / "2001-01-01.000.jsonl"
    old.parent.mkdir()
    old.write_text('{"time":1,"logger":"x","message":"m"}\n')
    before = threading.active_count()
    with shipping(store, Logs(), project="p"):
        assert threading.active_count() == before
    assert not old.exists()


def test_a_ledger_that_cannot_be_read_is_a_trouble_and_no_error(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Memory()
    sent(store, sink)
    say(store, "line")

    def broken(**_: Any) -> Iterator[Any]:
        raise ModelyardError("ledger-locked", "locked")

    with shipper(store, sink) as one:
        with monkeypatch.context() as patched:
            patched.setattr(store.ledger, "events", broken)
            one.send_all()
            assert "locked" in one.trouble["memory"]
        one.send_all()
    assert messages(sink) == ["line"]
