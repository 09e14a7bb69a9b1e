"""What is written for nginx: it takes it, it spreads evenly, and nothing of a user's words gets into it unseen."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard._kit.errors import ServeError
from modelyard._kit.ports import listen
from modelyard.cli.main import main
from modelyard.security.roles import ROLES
from modelyard.security.tokens import add_token
from modelyard.serving.limits import Limits
from modelyard.serving.nginx import address, config
from tests.serving.conftest import Server, lay, mixed_bundle, start

NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
ROW = {"age": 30, "city": "rome", "income": 10.0}


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "host",
        ":80",
        "host:",
        "host:0",
        "host:65536",
        "host:8o",
        "1.2.3:80",
        "1.2.3.256:80",
        "::1:80",
        "[::g]:80",
        "[fe80::1%eth0]:80",
        "[::1%;} include /etc/passwd; #]:80",
        "host;:80",
        "a b:80",
        "host\n:80",
        "host:80\n",
        "host:80;",
        "$host:80",
        "unix:/tmp/x:80",
        "-a:80",
        "host:٣٣",
    ],
)
def test_only_a_host_and_a_port_are_an_address(wrong: str) -> None:
    with pytest.raises(ServeError) as caught:
        address(wrong)
    assert caught.value.code == "nginx-address"


@pytest.mark.parametrize("wrong", ['/a"b', "/a$b", "/a;b", "/a\nb", "/a\\b", "/a{b"])
def test_a_path_cannot_leave_its_quotes(wrong: str) -> None:
    with pytest.raises(ServeError, match="cannot stand"):
        config(["h:1"], listen="h:2", cert=Path(wrong), key=Path("/k"))


def test_it_waits_and_takes_as_the_servers_do() -> None:
    text = config(["h:1"], listen="h:2", limits=Limits(body=123, total_seconds=7, keep_alive=30))
    for line in ("client_max_body_size 123;", "proxy_read_timeout 12s;", "keepalive_timeout 20s;"):
        assert line in text
    assert "non_idempotent" not in text
    assert "grpc_pass" not in text


# What of a replica alone nobody is told through nginx, and what only looks like it.
OWN = ("/metrics", "/models/income/metrics", "/models/metrics/metrics")
PASSED = (
    "/predict",
    "/models/metrics/predict",
    "/v2/models/metrics",
    "/models/income/v2/models/metrics",
    "/models/income/openapi.json",
)


def test_metrics_of_one_replica_are_not_passed_on() -> None:
    """As nginx chooses: the exact place, then the first pattern, then the rest."""
    text = config(["h:1"], listen="h:2")
    places = re.findall(r"^    location (?:(=|~) )?(\S+) \{\n\s+(.*)", text, re.MULTILINE)

    def does(path: str) -> str:
        exact = [then for kind, place, then in places if kind == "=" and place == path]
        found = [then for kind, place, then in places if kind == "~" and re.search(place, path)]
        return str([*exact, *found, *(then for kind, place, then in places if not kind)][0])

    assert [does(path) for path in OWN] == ["return 404;"] * len(OWN)
    assert [does(path) for path in PASSED] == ["proxy_pass http://modelyard_http;"] * len(PASSED)


def test_a_replica_is_named_once() -> None:
    with pytest.raises(ServeError, match=r"`h:1` is given twice"):
        config(["h:1", "h:1"], listen="h:2")


def test_http_and_grpc_are_not_awaited_in_one_place() -> None:
    with pytest.raises(ServeError, match=r"`1\.2\.3\.4:80` is given twice"):
        config(["h:1"], listen="1.2.3.4:80", grpc=["h:3"], grpc_listen="1.2.3.4:080")


def test_the_verb_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made.conf"
    assert main(["nginx", "10.0.0.1:80", "10.0.0.2:80", "--json", "-o", str(file)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["config"] == file.read_text()
    assert "server 10.0.0.2:80 max_fails=2" in file.read_text()
    assert f"include {file};" in said.err
    assert main(["nginx", "10.0.0.1:80", "-o", str(tmp_path / "no" / "made.conf")]) == 2
    assert "error[output-folder]" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert main(["nginx", "10.0.0.1"]) == 2
    assert "nginx-address" in capsys.readouterr().err
    assert main(["nginx", "10.0.0.1:80", "--grpc-listen", "127.0.0.1:81"]) == 2
    assert "--grpc" in capsys.readouterr().err


# -- with nginx itself


def free_port() -> int:
    with listen("127.0.0.1", 0, backlog=1) as sock:
        return int(sock.getsockname()[1])


def whole(folder: Path, made: str) -> list[str]:
    """Write a whole configuration around what was made, and return the command line."""
    (folder / "made.conf").write_text(made)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        "events { worker_connections 512; }\n"
        f"http {{ client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n"
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; include {folder}/made.conf; }}\n"
    )
    return [str(NGINX), "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")]


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Run nginx with what was made."""
    if NGINX is None:
        pytest.skip("no nginx on this machine: apt-get install nginx")
    running = []

    def run(made: str) -> None:
        folder = tmp_path / "nginx"
        folder.mkdir()
        running.append(subprocess.Popen(whole(folder, made), stderr=subprocess.DEVNULL))

    yield run
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "a cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
    subprocess.run([*command, "-out", str(cert), "-keyout", str(key)], check=True, capture_output=True)
    return cert, key


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_nginx_takes_it(tmp_path: Path, tls: bool) -> None:
    if NGINX is None:
        pytest.skip("no nginx on this machine: apt-get install nginx")
    cert = key = None
    if tls:
        cert, key = certificate(tmp_path)
    made = config(
        ["127.0.0.1:8080", "[::1]:8080"],
        listen="127.0.0.1:8443",
        grpc=["127.0.0.1:8081"],
        grpc_listen="[::1]:8444",
        cert=cert,
        key=key,
    )
    done = subprocess.run([*whole(tmp_path, made), "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


class Slow:
    """A replica that takes its time: what is sent to it waits, then goes to a real one."""

    def __init__(self, port: int, seconds: float) -> None:
        self.port, self._to, self._seconds = free_port(), port, seconds
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._take, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)

        async def pump(a: asyncio.StreamReader, b: asyncio.StreamWriter, wait: float) -> None:
            try:
                while data := await a.read(65536):
                    await asyncio.sleep(wait)
                    b.write(data)
            finally:
                b.close()

        await asyncio.gather(pump(reader, to_writer, self._seconds), pump(to_reader, writer, 0), return_exceptions=True)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def until_it_listens(url: str) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            httpx.get(f"{url}/v2/health/ready", verify=False)  # noqa: S501 - its own certificate
            return
        except httpx.HTTPError:
            assert time.monotonic() < end
            time.sleep(0.02)


def told(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of a refusal of nginx's own, which has the form of those of the servers."""
    assert answer.headers["content-type"] == "application/json"
    assert not re.search("nginx|openssl|html", answer.text, re.IGNORECASE)
    found = answer.json()
    if answer.request.url.path.startswith(("/v2", "/models/credit/v2")):
        assert set(found) == {"error", "code", "id"}
        assert found["error"].startswith(f"[{found['code']}] ")
    else:
        found = found["error"]
        assert set(found) == {"code", "message", "id"}
    assert found["id"] == answer.headers["x-request-id"]
    return answer.status_code, found["code"]


def raw(port: int, sent: bytes) -> httpx.Response:
    """Send bytes, and return what was answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = [tuple(one.split(": ", 1)) for one in lines]
    return httpx.Response(
        int(line.split()[1]), headers=dict(headers), content=body, request=httpx.Request("GET", "http://x/")
    )


@pytest.mark.slow
def test_what_nginx_says_itself_has_the_form_of_the_servers(spread: Callable[[str], None], served: Server) -> None:
    port, limits = free_port(), Limits()
    url = f"http://127.0.0.1:{port}"
    spread(config([f"127.0.0.1:{served.port}"], listen=f"127.0.0.1:{port}", limits=limits))
    until_it_listens(url)
    headers = {"authorization": f"Bearer {served.tokens['analyst']}"}
    large = b" " * (limits.body + 1)
    with httpx.Client(base_url=url, headers=headers, timeout=20) as client, served.client() as straight:

        def as_the_server(method: str, path: str, **more: Any) -> tuple[int, str]:
            mine = client.request(method, path, **more)
            theirs = straight.request(method, path, **more)
            assert theirs.status_code == mine.status_code
            without = [re.sub(rb'"id": ?"[^"]*"', b"", one.content) for one in (mine, theirs)]
            assert without[0] == without[1]
            return told(mine)

        for path in ("/predict", "/v2/models/credit/infer", "/models/credit/v2/models/credit/infer"):
            assert as_the_server("POST", path, content=large) == (413, "body-too-large")
            assert as_the_server("GET", path, headers={"x-long": "a" * 70_000}) == (431, "headers-too-large")
        long = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 70_000)
        assert told(raw(port, long)) == (431, "headers-too-large")
        assert told(client.get("/.modelyard/error")) == (404, "route-not-found")
        for status, sent in (
            (400, b"no request\r\n\r\n"),
            (400, b"GET / HTTP/1.1\r\n\r\n"),
            (400, b"GET / HTTP/9.1\r\nHost: a\r\n\r\n"),
            (400, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: odd\r\n\r\n"),
        ):
            assert told(raw(port, sent)) == (status, "not-http"), sent
        assert told(raw(port, b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")) == (405, "method-not-allowed")

        # What a replica says goes through as it is.
        for path, more in (("/predict", {"json": {"age": 30}}), ("/v2/models/no", {}), ("/predict", {"headers": None})):
            method = "POST" if path == "/predict" else "GET"
            asked = {"authorization": "Bearer no"} if "headers" in more else {}
            more = {**more, "headers": {**asked, "x-request-id": "mine-1"}}
            mine, theirs = client.request(method, path, **more), straight.request(method, path, **more)
            assert mine.status_code >= 400
            assert (mine.status_code, mine.content) == (theirs.status_code, theirs.content)
            assert mine.headers["content-type"] == theirs.headers["content-type"]
            assert mine.headers.get_list("x-request-id") == ["mine-1"]


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_nobody_behind_nginx_is_told_as_the_servers_tell(
    spread: Callable[[str], None], tmp_path: Path, tls: bool
) -> None:
    dead, grpc_dead, port, grpc_port = free_port(), free_port(), free_port(), free_port()
    cert, key = certificate(tmp_path) if tls else (None, None)
    spread(
        config(
            [f"127.0.0.1:{dead}"],
            listen=f"127.0.0.1:{port}",
            grpc=[f"127.0.0.1:{grpc_dead}"],
            grpc_listen=f"127.0.0.1:{grpc_port}",
            cert=cert,
            key=key,
            limits=Limits(total_seconds=-4),
        )
    )
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    until_it_listens(url)
    with httpx.Client(base_url=url, verify=False, timeout=20) as client:  # noqa: S501 - its own certificate
        # By the second failure the replica is left out, and none is there to be asked.
        for _ in range(4):
            for path in ("/predict", "/v2/models/credit/infer"):
                assert told(client.post(path, json=ROW)) == (502, "replica-away")
        own = client.post("/predict", json=ROW, headers={"x-request-id": "mine-1"})
        assert own.json()["error"]["id"] == "mine-1"
        bad = client.post("/predict", json=ROW, headers={"x-request-id": 'a"b\\'})
        assert told(bad) == (502, "replica-away")
        assert "server" not in bad.headers or re.fullmatch("nginx", bad.headers["server"])
        if tls:
            plain = raw(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert told(plain) == (400, "not-http")
        else:
            with socket.create_server(("127.0.0.1", dead)):
                time.sleep(5.1)
                assert told(client.post("/predict", json=ROW)) == (504, "replica-late")


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[list[Server]]:
    servers = []
    tokens = {role: add_token(tmp_path, role, role) for role in ROLES}
    for number in range(4):
        project = tmp_path / f"replica{number}"
        shutil.copytree(tmp_path / ".modelyard", project / ".modelyard")
        servers.append(start(project, lay(project, mixed_bundle()), **tokens))
    yield servers
    for server in servers:
        server.stop()


@pytest.mark.slow
def test_four_replicas_of_which_one_is_slow_and_one_dies(spread: Callable[[str], None], replicas: list[Server]) -> None:
    slow = Slow(replicas[3].port, 0.1)
    port, url = free_port(), ""
    try:
        spread(
            config([f"127.0.0.1:{p}" for p in (*(r.port for r in replicas[:3]), slow.port)], listen=f"127.0.0.1:{port}")
        )
        url = f"http://127.0.0.1:{port}"
        until_it_listens(url)
        headers = {"authorization": f"Bearer {replicas[0].tokens['analyst']}"}
        limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
        with (
            httpx.Client(base_url=url, headers=headers, limits=limits, timeout=20) as client,
            ThreadPoolExecutor(16) as pool,
        ):

            def ask(number: int) -> int:
                answer = client.post("/predict", json=ROW, headers={"x-request-id": f"mine-{number}"})
                assert answer.headers["x-request-id"] == f"mine-{number}"
                return answer.status_code

            assert set(pool.map(ask, range(900))) == {200}
            counts = [answered(replica) for replica in replicas]
            assert sum(counts) == 900
            assert max(counts[:3]) < 1.5 * min(counts[:3]), counts
            assert counts[3] < min(counts[:3]) / 2, counts
            assert client.get("/metrics").status_code == 404
            assert client.get("//metrics").status_code == 404
            token = {"authorization": f"Bearer {replicas[0].tokens['operator']}"}
            for path in (*OWN, "/models/credit/metrics", "/models/credit/./metrics?a=b", "/models/credit/metrics#a"):
                refused = httpx.get(f"{url}{path}", headers=token)
                # A replica would have asked for the role of another token, or said it in the words of the protocol.
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "route-not-found"), path
            assert client.get("/models/credit/v2/models/credit").status_code == 200
            os.kill(replicas[0].process.pid, signal.SIGKILL)
            replicas[0].process.wait(60)
            # Nothing was under way there: what cannot be sent to it goes to another.
            assert set(pool.map(ask, range(900, 1200))) == {200}
            assert sum(answered(replica) for replica in replicas[1:]) == 1200 - counts[0]
    finally:
        slow.stop()


def answered(server: Server) -> int:
    with server.client("operator") as client:
        return int(client.get("/stats").json()["answered"])
