"""The receiver of deliveries behind a real server: many at once, refusals, and what the guide tells a shell."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.automation.test_hooks import SECRET, House

from modelyard.automation.triggers.signature import sign


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    made = House(tmp_path)
    yield made
    assert made.store.ledger.verify() == []
    made.store.close()


@pytest.fixture
def served(house: House) -> Iterator[str]:
    """The receiver behind a real server; its address."""
    import uvicorn

    house.now = time.time()
    server = uvicorn.Server(uvicorn.Config(house.app, port=0, log_config=None))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline, "the server of the hooks never started"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_many_at_once_over_http(house: House, served: str) -> None:
    """Ten senders send the same twenty deliveries at the same time: each is taken once."""
    counts: list[int] = []

    def sender() -> None:
        with httpx.Client(base_url=served) as http:
            for number in range(20):
                body = json.dumps({"n": number}).encode()
                headers = sign(SECRET, id=f"msg_{number}", timestamp=int(house.now), body=body)
                while (answer := http.post("/hooks/deployed", content=body, headers=headers)).status_code in (429, 503):
                    house.ticks += 60
                counts.append(answer.status_code)

    threads = [threading.Thread(target=sender) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [200] * 180 + [202] * 20
    assert sorted(fire.payload["n"] for fire in house.fires) == list(range(20))


def test_a_refused_body_is_answered_over_http(house: House, served: str) -> None:
    with httpx.Client(base_url=served) as http:
        answer = http.post("/hooks/deployed", content=b"x" * 5_000_000)
        assert answer.status_code == 413
        assert http.post("/hooks/nothing", content=b"x" * 100_000).status_code == 404
        assert http.post("/hooks/deployed", content=b"{}").status_code == 401


def test_the_guides_lines_for_a_shell_are_taken(house: House, served: str) -> None:
    """What the page shows is run as it stands, against a server that is there."""
    if not (shutil.which("curl") and shutil.which("openssl")):
        pytest.skip("no curl or no openssl")
    page = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "triggers.md").read_text("utf-8")
    script = re.search(r"```bash\n(id=.*?)```", page, re.DOTALL)
    assert script
    house.now = time.time()
    port = served.rpartition(":")[2]
    text = re.sub(r"http://127\.0\.0\.1:\d+", f"http://127.0.0.1:{port}", script[1])
    env = {"HOOK_SECRET": SECRET, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(["/bin/bash", "-euc", text], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert [fire.payload for fire in house.fires] == [{"version": 3}]
    assert house.fires[0].id in done.stdout
