"""The server: where it listens, what it says, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_socket import socket_allow_hosts

from modelyard._kit.errors import NotFound, ServeError
from modelyard.store.local import LocalStore
from modelyard.web.server import bind, serve

WEB = [sys.executable, "-m", "modelyard.web"]
CLI = [sys.executable, "-m", "modelyard.cli.main", "ui"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the store of a project."""
    root = tmp_path / "income"
    root.mkdir()
    LocalStore(root).close()
    return root


@contextmanager
def started(command: list[str], cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd) as process:
        try:
            assert process.stderr is not None
            lines: list[str] = []
            while not (found := re.search(r"http://\S+/", "".join(lines))):
                line = process.stderr.readline()
                assert line, f"it ended with {process.wait()}: {''.join(lines)}"
                lines.append(line)
            yield process, found[0]
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])  # noqa: S104 - it is refused
def test_addresses_beyond_this_machine_are_refused(host: str) -> None:
    with pytest.raises(ServeError) as caught:
        bind(host, 0)
    assert caught.value.code == "not-loopback"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_loopback_addresses_are_taken(host: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bind(host, 0) as sock:
        address, port = sock.getsockname()[:2]
        assert ip_address(address).is_loopback
        with socket.create_connection((address, port), timeout=10) as asking:
            assert asking.getpeername()[:2] == (address, port)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_what_is_no_port_is_said_as_the_model_server_says_it(port: int) -> None:
    with pytest.raises(ServeError) as caught:
        bind("127.0.0.1", port)
    assert caught.value.code == "address-unusable"


def test_taken_port_is_said_with_another(project: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError) as caught:
            serve(project, port=port)
    assert caught.value.code == "port-taken"
    assert str(port) in caught.value.problem.message


def test_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="project-not-found"):
        serve(tmp_path / "nowhere", port=0)


def test_a_folder_in_which_nothing_was_run_is_no_project_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="project-not-found") as caught:
        serve(tmp_path, port=0)
    assert "modelyard run" in caught.value.problem.hint
    file = str(tmp_path / "modelyard.yaml")
    for command in ([*WEB, "--project", str(tmp_path), "--port", "0"], [*CLI, "--port", "0", "--no-open", "-f", file]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2, done.stderr
        assert "[project-not-found]" in done.stderr
        assert "starting the pages" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_end_with_two(project: Path, tmp_path: Path) -> None:
    for extra in (["--port", "70000"], ["--host", "192.0.2.1"], ["--project", str(tmp_path / "nowhere")]):
        done = subprocess.run([*WEB, "--project", str(project), *extra], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_answers_and_ends_when_asked(project: Path, stop: signal.Signals) -> None:
    with started([*WEB, "--project", str(project), "--port", "0"], project) as (process, address):
        answer = httpx.get(address, timeout=10)
        assert answer.status_code == 200
        assert "server" not in answer.headers
        assert httpx.get(address, headers={"host": "evil.example"}, timeout=10).status_code == 421
        process.send_signal(stop)
        assert process.wait(10) in (0, -stop)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform == "darwin", reason="only 127.0.0.1 is set up there")
def test_it_answers_to_the_address_it_was_told_to_listen_on(project: Path) -> None:
    socket_allow_hosts(["127.0.0.2"])
    command = [*WEB, "--project", str(project), "--host", "127.0.0.2", "--port", "0"]
    with started(command, project) as (_, address):
        assert address.startswith("http://127.0.0.2:")
        assert httpx.get(address, timeout=10).status_code == 200
        assert httpx.get(address, headers={"host": "127.0.0.3"}, timeout=10).status_code == 421


def test_command_becomes_the_server_of_the_file_s_folder(tmp_path: Path, seeded: Any) -> None:
    root = Path(seeded.store.root).resolve()
    file = str(root / "modelyard.yaml")
    with started([*CLI, "--port", "0", "--no-open", "-f", file], tmp_path) as (process, address):
        assert "run-05again0000000" in httpx.get(f"{address}runs", timeout=10).text
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_command_has_an_example_and_refuses_what_is_no_port(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CLI, "--help"], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"}
    )
    assert "modelyard ui --port" in done.stdout
    done = subprocess.run([*CLI, "--port", "99999"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "--port is `99999`" in done.stderr
