"""What comes in with the signal to end is answered: neither what waits in the system nor what lies unread is reset."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from modelyard.serving.ending import drain
from modelyard.serving.http import accepting
from modelyard.serving.http.accepting import Listener
from modelyard.serving.http.connection import Connection
from modelyard.serving.http.tls import Tls

from .authority import Authority  # noqa: TID252 - the suite is not installed, so there is no absolute name
from .conftest import Server, mixed_bundle  # noqa: TID252
from .inprocess import Endpoint  # noqa: TID252

ROW = {"age": 30, "income": 500.0, "city": "paris"}
BOTH = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
Dial = Callable[[], socket.socket]


def answer(sock: socket.socket) -> bytes:
    """Read the head of one answer; empty if there is none."""
    got = b""
    while b"\r\n\r\n" not in got:
        if not (part := sock.recv(65_536)):
            break
        got += part
    return got


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(tmp_path, mixed_bundle(), None) as made:
        yield made


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as sock:
        yield sock


@pytest.fixture
def dial(listening: socket.socket) -> Iterator[Dial]:
    address = listening.getsockname()
    with contextlib.ExitStack() as held:
        yield lambda: held.enter_context(socket.create_connection(address, timeout=20))


@BOTH
@pytest.mark.parametrize("crowd", [0, 300])
def test_what_waits_and_what_lies_unread_is_answered(
    endpoint: Endpoint, listening: socket.socket, dial: Dial, run: Callable[..., Any], crowd: int
) -> None:
    async def work() -> None:
        listener = Listener(listening, lambda: Connection(endpoint.app))
        asking = [dial()]
        while not endpoint.app.connections or listener._opening:
            await asyncio.sleep(0)
        # The loop makes no turn from here to the end: nothing is taken or read of what comes now.
        asking += [dial() for _ in range(crowd)]
        for sock in asking:
            sock.sendall(endpoint.request(ROW))
        await listener.close()
        await drain(endpoint.app.connections, (), 20.0, asyncio.Event())
        assert {answer(sock)[:12] for sock in asking} == {b"HTTP/1.1 200"}

    run(work())


@BOTH
def test_handshakes_under_way_come_to_their_end_but_nobody_waits_for_the_silent(
    endpoint: Endpoint,
    listening: socket.socket,
    dial: Dial,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[..., Any],
) -> None:
    authority = Authority(tmp_path, "ca")
    tls = Tls(*map(Path, authority.sign("server")))
    trusted = ssl.create_default_context(cafile=str(authority.path))

    async def ask(sock: socket.socket) -> bytes:
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusted, server_hostname="localhost")
        writer.write(endpoint.request(ROW))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        return head

    async def work() -> None:
        listener = Listener(listening, lambda: Connection(endpoint.app), context=tls.context)
        asking, silent = [dial() for _ in range(5)], dial()
        _, *heads = await asyncio.gather(listener.close(), *map(ask, asking))
        assert {head[:12] for head in heads} == {b"HTTP/1.1 200"}
        await drain(endpoint.app.connections, (), 20.0, asyncio.Event())
        assert silent.recv(1) == b""

    monkeypatch.setattr(accepting, "_LAST", 0.3)
    run(work())


@BOTH
def test_who_has_asked_of_late_is_answered_once_more_and_told_to_go(
    endpoint: Endpoint, listening: socket.socket, dial: Dial, run: Callable[..., Any]
) -> None:
    async def work() -> None:
        listener = Listener(listening, lambda: Connection(endpoint.app))
        asking, idle, new = dial(), dial(), dial()
        for sock in (asking, idle):
            sock.sendall(endpoint.request(ROW))
            sock.setblocking(False)
            assert b"200 OK" in await asyncio.get_running_loop().sock_recv(sock, 65_536)
        port = idle.getsockname()[1]
        (unused,) = (one for one in endpoint.app.connections if one.transport.get_extra_info("peername")[1] == port)
        # As a look at all connections would have found it some seconds ago.
        unused.idle = time.monotonic() - 5.0
        await listener.close()
        endpoint.app.draining = True
        ending = asyncio.create_task(drain(endpoint.app.connections, (), 20.0, asyncio.Event()))
        await asyncio.sleep(0.05)
        assert idle.recv(10) == b""
        for sock in (asking, new):
            sock.setblocking(True)
            sock.sendall(endpoint.request(ROW))
        await ending
        for sock in (asking, new):
            head = answer(sock)
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in head

    run(work())


@pytest.mark.parametrize("processes", [1, 2])
def test_nobody_who_asks_again_and_again_loses_a_request_to_the_end(
    fresh: Callable[..., Server], processes: int
) -> None:
    server = fresh(None, "--processes", str(processes))
    began, lost = threading.Barrier(17), []

    def go_on() -> None:
        with httpx.Client(headers={"authorization": f"Bearer {server.tokens['analyst']}"}, timeout=20) as client:
            client.get(f"{server.url}/v2/health/live")
            began.wait()
            while True:
                try:
                    answer = client.post(f"{server.url}/predict", json={"rows": [ROW]})
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    lost.append(repr(error))
                    return
                if answer.status_code != 200:
                    lost.append(answer.text)
                # As a caller that has something else to do between two requests.
                time.sleep(0.005)

    threads = [threading.Thread(target=go_on) for _ in range(16)]
    for one in threads:
        one.start()
    began.wait()
    time.sleep(0.5)
    assert server.stop() == 0
    for one in threads:
        one.join()
    assert lost == []


def test_idle_caller_over_tls_does_not_hold_the_end_up(fresh: Callable[..., Server], tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.sign("server")
    server = fresh(None, "--tls-cert", str(certificate), "--tls-key", str(key))
    trusted = ssl.create_default_context(cafile=str(authority.path))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        trusted.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in sock.recv(65_536)
        # It neither asks nor listens; a server that waits for it to agree would take all of `drain_seconds`.
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
    server.stop()
    assert not [line for line in server.said if "under way" in line]


@pytest.mark.parametrize("processes", [1, 2])
def test_told_once_more_a_server_does_not_wait_for_half_a_body(fresh: Callable[..., Server], processes: int) -> None:
    server = fresh(None, "--processes", str(processes))
    asked = b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-length: 99\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(asked % server.tokens["analyst"].encode())
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        time.sleep(1.3)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        # Without the second signal it would be 20 s.
        assert server.process.wait(10) == 0
        assert sock.recv(10) == b""
    assert server.stop() == 0


def test_ctrl_c_before_the_server_can_hear_it_ends_it_without_a_traceback() -> None:
    early = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}); "
        "os.kill(os.getpid(), signal.SIGINT); "
        "os.execv(sys.executable, [sys.executable, '-m', 'modelyard.serving', '--bundle', 'none', '--project', 'none'])"
    )
    done = subprocess.run([sys.executable, "-c", early], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
