"""What is written for nginx: it takes it, it spreads evenly, and nothing of a user's words gets into it unseen."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_nginx_takes_it(tmp_path: Path, tls: bool) -> None:
    if NGINX is None:
        pytest.skip("no nginx on this machine: apt-get install nginx")
    cert = key = None
    if tls:
        cert, key = tmp_path / "a cert.pem", tmp_path / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
        subprocess.run([*command, "-out", str(cert), "-keyout", str(key)], check=True, capture_output=True)
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
        end = time.monotonic() + 10
        while True:
            try:
                if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                assert time.monotonic() < end
                time.sleep(0.02)
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
                assert (refused.status_code, "nginx" in refused.text) == (404, True), path
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
