"""Nobody takes too much: bytes, seconds, places."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelyard.serving.http.sweep import sweep
from modelyard.serving.limits import Limits, Rate

from .conftest import Server  # noqa: TID252 - the suite is not installed, so there is no absolute name

ROW = {"age": 30, "income": 500.0, "city": "paris"}


def memory_kb(server: Server) -> int:
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    raise AssertionError


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("role", ["analyst", "viewer", ""])
def test_body_of_50_mb_is_refused_while_it_comes(served: Server, chunked: bool, role: str) -> None:
    block = b" " * 1_000_000
    content = (block for _ in range(50)) if chunked else block * 50
    before = memory_kb(served)
    with served.client(role) as client:
        answer = client.post("/predict", content=content)
        assert answer.status_code == {"analyst": 413, "viewer": 403, "": 401}[role]
        assert answer.headers["connection"] == "close"
        error = answer.json()["error"]
        assert error["code"] == {"analyst": "body-too-large", "viewer": "role-denied", "": "token-missing"}[role]
        # The server goes on, for this client too.
        assert client.get("/v2/health/live").status_code == 200
    assert memory_kb(served) - before < 30_000


def test_body_of_9_mb_is_taken(served: Server) -> None:
    with served.client() as client:
        answer = client.post("/predict", content=json.dumps(ROW).encode() + b" " * 9_000_000)
    assert answer.status_code == 200


@pytest.fixture
def raw(served: Server) -> Iterator[Callable[[bytes], bytes]]:
    """Send bytes and return everything that comes back until the server hangs up."""
    sockets = []

    def talk(data: bytes) -> bytes:
        sock = socket.create_connection(("127.0.0.1", served.port), timeout=20)
        sockets.append(sock)
        with contextlib.suppress(OSError):  # it may hang up while we still send
            sock.sendall(data)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                got += part
        return got

    yield talk
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_not_http_is_refused_in_our_words(raw: Callable[[bytes], bytes], served: Server, data: bytes) -> None:
    got = raw(data)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 401")), got
    assert json.loads(body)["error"]["code"] in ("not-http", "token-missing")
    assert b"server:" not in got.lower()
    with served.client() as client:
        assert client.post("/predict", json=ROW).status_code == 200


def test_huge_headers_are_refused(raw: Callable[[bytes], bytes], served: Server) -> None:
    before = memory_kb(served)
    got = raw(b"GET /v2 HTTP/1.1\r\nhost: x\r\nx-big: " + b"a" * 20_000_000)
    # Who still sends may see the connection reset before the answer.
    assert got == b"" or b"431" in got.splitlines()[0]
    assert memory_kb(served) - before < 30_000
    got = raw(b"GET /v2 HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
    assert b"431" in got.splitlines()[0]
    assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers-too-large"


def test_connection_that_says_nothing_is_cut() -> None:
    class Transport:
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    class Connection:
        def __init__(self, age: float, *, whole: bool = False) -> None:
            self.began = time.monotonic() - age if age else 0.0
            self.idle = 0.0 if age else time.monotonic() - 1
            self.lingers = False
            self.busy = whole
            self.transport = Transport()

    limits = Limits(header_seconds=10, total_seconds=60)
    idle, young, slow = Connection(0), Connection(5), Connection(11)
    working, stuck = Connection(30, whole=True), Connection(61, whole=True)
    assert sweep({idle, young, slow, working, stuck}, limits) == 2
    assert [c.transport.aborted for c in (idle, young, slow, working, stuck)] == [False, False, True, False, True]


@pytest.mark.slow
def test_slow_headers_are_cut_after_ten_seconds(served: Server) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as sock:
        try:
            while True:
                sock.sendall(b"GET /v2 HTTP/1.1\r\nx: " if time.monotonic() - began < 0.1 else b"y")
                time.sleep(0.5)
        except OSError:
            pass
    # How much later than that is a matter of the machine.
    assert time.monotonic() - began > Limits().header_seconds - 1


def test_caller_who_has_said_all_is_still_answered(served: Server) -> None:
    body = json.dumps(ROW).encode()
    token = served.tokens["analyst"].encode()
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(head % (token, len(body)) + body)
        sock.shutdown(socket.SHUT_WR)
        got = b""
        while part := sock.recv(65536):
            got += part
    assert got.startswith(b"HTTP/1.1 200")
    assert b'"predictions"' in got


def test_caller_who_hangs_up_in_the_middle_harms_nobody(served: Server) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", served.port)) as sock:
            token = served.tokens["analyst"].encode()
            sock.sendall(
                b"POST /predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
                + token
                + b"\r\ncontent-length: 99\r\n\r\n{"
            )
    with served.client("operator") as client:
        assert client.post("/predict", json=ROW).status_code == 200
        assert client.get("/stats").json()["refused"].get("internal", 0) == 0


def test_caller_who_reads_no_answer_is_read_no_more(served: Server) -> None:
    one = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n" * 1000
    before, sent = memory_kb(served), 0
    with socket.create_connection(("127.0.0.1", served.port), timeout=0.5) as sock, contextlib.suppress(TimeoutError):
        while sent < 60_000_000:
            sock.sendall(one)
            sent += len(one)
    # What the system keeps of both directions, and not much of the server's own.
    assert sent < 60_000_000
    assert memory_kb(served) - before < 30_000
    with served.client() as client:
        assert client.post("/predict", json=ROW).status_code == 200


def files_of(server: Server) -> int:
    for line in Path(f"/proc/{server.process.pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return int(line.split()[3])
    raise AssertionError


@contextlib.contextmanager
def files(most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_server_may_open_as_many_files_as_it_takes_connections(fresh: Callable[..., Server]) -> None:
    """A login shell allows 1,024; whoever opened as many connections would keep all others out, without an answer."""
    with files(1024):
        server = fresh()
    assert files_of(server) > Limits().connections


@pytest.mark.slow
def test_idle_connections_keep_nobody_out_for_longer_than_the_limit(fresh: Callable[..., Server]) -> None:
    with files(1024):
        server = fresh()
    with files(5000), contextlib.ExitStack() as stack:
        for at in range(Limits().connections):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            sock.sendall(b"GET /v2 HTTP/1.1\r\nx: ")
            if at == 2000:
                with server.client() as client:
                    assert client.post("/predict", json=ROW).status_code == 200
        began = time.monotonic()
        with server.client() as client:
            answer = client.post("/predict", json=ROW)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too-many-connections")
        while answer.status_code != 200 and time.monotonic() - began < 60:
            time.sleep(0.2)
            with server.client() as client:
                answer = client.post("/predict", json=ROW)
    assert answer.status_code == 200


def test_many_at_once_are_all_answered(served: Server) -> None:
    def ask(worker: int) -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        headers = {"authorization": f"Bearer {served.tokens['analyst']}"}
        codes = []
        for n in range(30):
            connection.request("POST", "/predict", json.dumps({**ROW, "age": 18 + (worker + n) % 70}), headers)
            answer = connection.getresponse()
            answer.read()
            codes.append(answer.status)
        connection.close()
        return codes

    with ThreadPoolExecutor(16) as pool:
        assert {code for codes in pool.map(ask, range(16)) for code in codes} == {200}


def test_rate_refills() -> None:
    now = [0.0]
    rate = Rate(60, clock=lambda: now[0])
    assert [rate.take("ana") for _ in range(60)] == [0.0] * 60
    assert rate.take("ana") == pytest.approx(1.0)
    assert rate.take("bob") == 0.0
    now[0] = 1.0
    assert rate.take("ana") == 0.0
    assert rate.take("ana") > 0
    assert [Rate(0).take("ana") for _ in range(1000)] == [0.0] * 1000


def test_declared_access_narrows_roles_and_rate(fresh: Callable[..., Server]) -> None:
    server = fresh(None, "--role", "admin", "--per-minute", "3")
    with server.client("analyst") as client:
        answer = client.post("/predict", json=ROW)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role-denied")
        assert client.get("/v2").status_code == 200
    with server.client("admin") as client:
        answers = [client.post("/predict", json=ROW) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["error"]["code"] == "rate-exceeded"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 21


def test_outcomes_do_not_count_as_requests_for_predictions(fresh: Callable[..., Server]) -> None:
    server = fresh(None, "--per-minute", "3")
    truth = {"id": "r0", "truth": "yes"}
    with server.client("analyst") as client:
        asked = [client.post("/predict", json=ROW, headers={"x-request-id": f"r{at}"}).status_code for at in range(4)]
        # As many outcomes may be told, by themselves.
        told = [client.post("/feedback", json=truth).status_code for _ in range(4)]
        again = client.post("/predict", json=ROW).status_code
    assert (asked, told, again) == ([200, 200, 200, 429], [200, 200, 200, 429], 429)


@pytest.mark.parametrize("declared", [{"access": {"per_day": 2}}])
def test_rows_of_a_day_that_are_used_up_keep_no_outcome_out(fresh: Callable[..., Server], declared: Any) -> None:
    server = fresh(None, "--policy", json.dumps(declared))
    with server.client("analyst") as client:
        asked = [client.post("/predict", json=ROW, headers={"x-request-id": f"r{at}"}) for at in range(3)]
        told = client.post("/feedback", json=[{"id": "r0", "truth": "yes"}, {"id": "r1", "truth": "no"}])
    assert [one.status_code for one in asked] == [200, 200, 429]
    assert told.status_code == 200, told.text
