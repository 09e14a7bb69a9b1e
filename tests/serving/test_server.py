"""How the process starts, what it refuses to serve, what it loads, and how it ends."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import (  # noqa: TID252 - the suite is not installed, so there is no absolute name
    Server,
    lay,
    mixed_bundle,
    start,
)


def attempt(project: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "modelyard.serving", "--bundle", str(folder), "--project", str(project)]
    return subprocess.run([*line, "--port", "0", *arguments], capture_output=True, text=True, timeout=30)


def refused(done: subprocess.CompletedProcess[str], status: int, code: str) -> str:
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(f"error[{code}]"), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "model.onnx",
        "manifest.sig",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("model.json", "labels.json", "manifest.json")),
    ],
)
def test_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    folder = lay(tmp_path, mixed_bundle())
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    done = attempt(tmp_path, folder)
    assert done.returncode == 1, done.stderr
    assert re.match(r"error\[bundle-(tampered|untrusted-signer)\]", done.stderr)
    assert not (tmp_path / ".modelyard" / "requests").exists()


def test_bundle_of_a_stranger_and_unsigned_ones_are_refused(tmp_path: Path) -> None:
    folder = lay(tmp_path / "stranger", mixed_bundle())
    refused(attempt(tmp_path, folder), 1, "bundle-untrusted-signer")
    (folder / "manifest.sig").unlink()
    refused(attempt(tmp_path / "stranger", folder), 1, "bundle-unsigned")
    refused(attempt(tmp_path, tmp_path / "nothing"), 2, "bundle-unreadable")


def test_taken_port_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    folder = lay(tmp_path, mixed_bundle())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(attempt(tmp_path, folder, "--port", port), 2, "port-taken")
    assert port in said
    assert "--port" in said
    assert not (tmp_path / ".modelyard" / "requests").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--port", "70000"), "address-unusable"),
        (("--host", "192.0.2.1"), "address-unusable"),
        (("--host", "no such host"), "address-unusable"),
        (("--endpoint", "../up"), "endpoint-name"),
    ],
)
def test_wrong_arguments_are_said(tmp_path: Path, arguments: tuple[str, ...], code: str) -> None:
    refused(attempt(tmp_path, lay(tmp_path, mixed_bundle()), *arguments), 2, code)


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    from modelyard.security.tokens import add_token

    folder = lay(tmp_path, mixed_bundle())
    add_token(tmp_path, "ana", "analyst")
    (tmp_path / ".modelyard" / "keys" / "tokens.json").chmod(0o644)
    assert "chmod 600" in refused(attempt(tmp_path, folder), 2, "key-permissions")


def test_ready_line_tells_where_and_what(fresh: Callable[..., Server]) -> None:
    server = fresh(None, "--endpoint", "lending")
    assert re.search(r"^ready http://\S+ ", "\n".join(server.said), re.MULTILINE)
    assert server.endpoint == "lending"
    with server.client() as client:
        assert client.get("/v2/models/lending").json()["name"] == "lending"
        assert client.get("/v2/models/credit").status_code == 404
    assert server.stop() == 0
    assert server.said[-1] == "stopped endpoint=lending requests=0 rows=0 logged=0 held=0"


def test_port_can_be_taken_again_at_once(fresh: Callable[..., Server], tmp_path: Path) -> None:
    first = fresh()
    with first.client() as client:
        client.get("/v2")
        assert first.stop() == 0
    again = start(tmp_path, tmp_path / "bundles" / "credit", "--port", str(first.port), **first.tokens)
    assert again.port == first.port
    assert again.stop() == 0


def test_server_loads_no_training_library(tmp_path: Path) -> None:
    """The serving image needs only what is loaded here."""
    folder = lay(tmp_path, mixed_bundle())
    code = (
        "import sys, json, pathlib\n"
        "from modelyard.serving import server\n"
        "from modelyard.serving.opened import Told\n"
        "from modelyard.serving.server import Settings, serve\n"
        "def run(work):\n"
        "    work.close()\n"
        "    import uvloop\n"
        "    print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))\n"
        "server._run = run\n"
        f"told = Told(pathlib.Path({str(folder)!r}), pathlib.Path({str(tmp_path)!r}))\n"
        "sys.exit(serve(Settings((told,), port=0)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert {"onnxruntime", "numpy", "msgspec", "httptools", "uvloop"} <= loaded
    heavy = {
        "polars",
        "sklearn",
        "deltalake",
        "scipy",
        "lightgbm",
        "onnx",
        "skl2onnx",
        "starlette",
        "pandas",
        "optuna",
        "yaml",
    }
    assert not loaded & heavy


def test_server_starts_fast_and_stays_small(fresh: Callable[..., Server]) -> None:
    """The targets are 0.5 s and 80 MB; here they are only held against getting lost (this machine is shared)."""
    began = time.monotonic()
    server = fresh()
    with server.client() as client:
        assert client.get("/v2").status_code == 200
        for _ in range(50):
            client.post("/predict", json={"age": 30, "income": 1.0, "city": "rome"})
    assert time.monotonic() - began < 15
    rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    pss = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
    assert pss
    assert int(pss[1]) < 120_000
