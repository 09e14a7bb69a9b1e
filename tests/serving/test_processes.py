"""Several processes on one port: one ready line, nothing lost, and one that dies is back at once."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from modelyard.store.requests import ids_of

from .conftest import Server, start  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .versions import Yard, times, until  # noqa: TID252 - the same

# Connections of callers that come at once, and how a test has them come.
CROWD = 40
Crowd = Callable[[], Callable[[], int]]


def children(pid: int) -> set[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return set(map(int, found))


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def server(yard: Yard) -> Iterator[Server]:
    first = yard.keep(times(2.0))
    yard.point(first)
    line = [sys.executable, "-m", "modelyard.serving", "--bundle", str(yard.folder(first)), "--project", str(yard.root)]
    line += ["--endpoint", "hours", "--follow", "champion", "--port", "0", "--processes", "2"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.readline().rstrip()
    ready = re.match(r"ready (http://\S+) endpoint=hours model=[0-9a-f]{12} processes=2( kernels=python)?$", said)
    assert ready, said + process.stderr.read()
    started = Server(process, ready[1], "hours", yard.root, yard.tokens, [said])
    yield started
    if process.poll() is None:
        started.stop()


def ask(server: Server, count: int) -> list[str]:
    """Ask on many connections, so that each process gets some; return the ids of the answers."""
    ids = []
    for _ in range(count):
        with server.client() as client:
            answer = client.post("/predict", json={"a": 3.0})
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"] == [{"value": 6.0}]
            ids.append(answer.json()["id"])
    return ids


def test_all_answer_and_log_and_end_together(server: Server) -> None:
    both = children(server.process.pid)
    assert len(both) == 2
    with ThreadPoolExecutor(4) as pool:
        ids = [one for part in pool.map(lambda _: ask(server, 20), range(4)) for one in part]
    assert len(set(ids)) == 80
    # Each process puts its own prefix before the number of a request.
    assert len({one.rsplit("-", 1)[0] for one in ids}) == 2
    assert server.stop() == 0
    assert not [pid for pid in both if Path(f"/proc/{pid}").exists()]
    with closing(sqlite3.connect(server.log)) as db:
        assert ids_of(db) == set(ids)
    stopped = [line for line in server.said if line.startswith("stopped")]
    assert sum(int(re.search(r"logged=(\d+)", line)[1]) for line in stopped) == 80  # type: ignore[index]


def test_killed_process_comes_back_and_takes_nobody_with_it(server: Server) -> None:
    both = children(server.process.pid)
    victim = min(both)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    until(lambda: len(children(server.process.pid) - {victim}) == 2)
    new = children(server.process.pid) - both
    assert len(new) == 1
    ids = until(lambda: len({one.rsplit("-", 1)[0] for one in tried(server)}) == 2)
    assert ids
    assert time.monotonic() - began < 30
    assert server.stop() == 0
    assert any("was killed by SIGKILL" in line for line in server.said)


def tried(server: Server) -> list[str]:
    try:
        return ask(server, 20)
    except httpx.TransportError:
        return []


def test_champion_that_moves_is_followed_by_all(yard: Yard, server: Server) -> None:
    second = yard.keep(times(3.0))
    yard.point(second)

    def named() -> set[str]:
        found = set()
        for _ in range(16):
            with server.client() as client:
                found.add(client.post("/predict", json={"a": 1.0}).headers["x-model-version"])
        return found

    until(lambda: named() == {second.digest[:12]})
    # Who starts now does not begin with what was the champion when the server was started.
    both = children(server.process.pid)
    os.kill(min(both), signal.SIGKILL)
    until(lambda: len(children(server.process.pid) - {min(both)}) == 2)
    assert named() == {second.digest[:12]}


def test_parent_that_is_killed_takes_all_with_it(server: Server) -> None:
    both = children(server.process.pid)
    server.process.kill()
    server.process.wait(10)
    until(lambda: not [pid for pid in both if Path(f"/proc/{pid}").exists()])
    assert server.process.stderr is not None
    server.process.stderr.close()


def run(yard: Yard, *arguments: str) -> subprocess.CompletedProcess[str]:
    model = yard.keep(times(2.0))
    line = [sys.executable, "-m", "modelyard.serving", "--bundle", str(yard.folder(model)), "--project", str(yard.root)]
    return subprocess.run([*line, *arguments], capture_output=True, text=True, timeout=30)


def test_number_of_processes_is_checked(yard: Yard) -> None:
    done = run(yard, "--port", "0", "--processes", "0")
    assert done.returncode == 2
    assert done.stderr.startswith("error[processes-number]")


def test_port_of_another_server_that_shares_is_taken(yard: Yard, server: Server) -> None:
    done = run(yard, "--port", str(server.port), "--processes", "2")
    assert done.returncode == 2
    assert done.stderr.startswith("error[port-taken]")


def test_what_keeps_one_from_its_start_ends_all(yard: Yard) -> None:
    (yard.root / ".modelyard" / "requests").write_text("no folder")
    done = run(yard, "--port", "0", "--processes", "2")
    assert done.returncode == 2
    assert "error[log-unwritable]" in done.stderr
    assert "ready" not in done.stderr


def stop(pid: int) -> None:
    """Let a process do nothing until it is told to go on."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def crowd(server: Server) -> Iterator[Crowd]:
    """Connect so often that each process gets some, ask at once, and return what counts those that are answered."""
    body = b'{"a": 3.0}'
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.tokens['analyst']}\r\n"
    with ExitStack() as held:

        def connect() -> Callable[[], int]:
            there = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(CROWD)]
            for one in map(held.enter_context, there):
                one.sendall(head.encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body))
            return lambda: sum(map(answered, there))

        yield connect


def answered(caller: socket.socket) -> bool:
    try:
        return caller.recv(65_536).startswith(b"HTTP/1.1 200 ")
    except (ConnectionError, TimeoutError):
        return False


def refused(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=20).close()
    except ConnectionRefusedError:
        return True
    return False


def test_who_waits_at_a_process_that_is_killed_is_answered(server: Server, crowd: Crowd) -> None:
    first, second = children(server.process.pid)
    stop(first)
    stop(second)
    count = crowd()
    os.kill(first, signal.SIGKILL)
    os.kill(second, signal.SIGCONT)
    assert count() == CROWD
    assert server.stop() == 0


def test_who_comes_to_a_process_that_does_nothing_is_answered_by_another(server: Server, crowd: Crowd) -> None:
    idle = min(children(server.process.pid))
    stop(idle)
    count = crowd()
    assert count() == CROWD
    os.kill(idle, signal.SIGCONT)
    assert server.stop() == 0


def test_who_comes_while_they_end_is_answered_or_refused(server: Server, crowd: Crowd) -> None:
    slow = min(children(server.process.pid))
    stop(slow)
    server.process.send_signal(signal.SIGTERM)
    until(lambda: children(server.process.pid) == {slow})
    # One has ended; what comes for it is left to the other.
    count = crowd()
    os.kill(slow, signal.SIGCONT)
    assert count() == CROWD
    assert server.stop() == 0
    assert refused(server)


@pytest.fixture
def ailing(yard: Yard, server: Server) -> Iterator[Callable[[], object]]:
    """Have no process start any more, until this is called."""
    logs = yard.root / ".modelyard" / "requests"
    aside = logs.rename(logs.with_name("aside"))
    logs.write_text("no folder")

    def heal() -> None:
        if aside.exists():
            logs.unlink()
            aside.rename(logs)

    yield heal
    heal()


@pytest.mark.thorough
def test_process_that_does_not_start_again_keeps_nobody_waiting(server: Server, ailing: Callable[[], object]) -> None:
    os.kill(min(children(server.process.pid)), signal.SIGKILL)
    assert len({one.rsplit("-", 1)[0] for one in ask(server, 40)}) == 1
    ailing()
    until(lambda: len({one.rsplit("-", 1)[0] for one in ask(server, 20)}) == 2)
    assert server.stop() == 0


@pytest.mark.thorough
def test_where_none_starts_again_callers_are_refused_until_one_does(
    yard: Yard, server: Server, ailing: Callable[[], object]
) -> None:
    for pid in children(server.process.pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: refused(server))
    # The port is kept meanwhile.
    assert run(yard, "--port", str(server.port)).stderr.startswith("error[port-taken]")
    ailing()
    until(lambda: not refused(server))
    assert ask(server, 20)
    assert server.stop() == 0


@pytest.mark.thorough
def test_port_of_a_server_that_has_just_ended_is_taken_again(yard: Yard) -> None:
    """Its connections are remembered for a minute by the system, with whether the port was shared."""
    model, port = yard.keep(times(2.0)), "0"
    for processes in ("1", "2", "1", "2", "2"):
        server = start(yard.root, yard.folder(model), "--port", port, "--processes", processes, **yard.tokens)
        port = str(server.port)
        with server.client() as client:
            assert client.post("/predict", json={"a": 3.0}).status_code == 200
            assert server.stop() == 0, server.said


def test_address_may_be_one_of_ipv6(yard: Yard) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    model = yard.keep(times(2.0))
    server = start(yard.root, yard.folder(model), "--host", "::1", "--processes", "2", **yard.tokens)
    assert server.url.startswith("http://[::1]:")
    assert ask(server, 20)
    assert server.stop() == 0
