"""One id leads from the trigger over run, steps and deployment to the request, and a planted secret is nowhere."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.automation.base import Wanted
from modelyard.automation.fires import ask
from modelyard.cli.main import main
from modelyard.pipeline.project import run_project
from tests.stories.conftest import COLUMNS, SPEC, samples

Make = Callable[..., Path]
SECRET = "swordfish-42-of-the-warehouse"
FEATURES = """\
import logging
import os


def build(tables):
    password = os.environ["WAREHOUSE_PASSWORD"]
    print("reading with", password)
    logging.getLogger("features").info("connected as me:%s", password)
    return tables["samples"]
"""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """Serve the champion; give its address and the line that it began with."""
    command = [sys.executable, "-m", "modelyard", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            yield next((found[1], line) for line in server.stderr if (found := re.search(r"ready (http://\S+)", line)))
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=20)
    assert server.returncode == 0


def predict(address: str, token: str, request_id: str) -> None:
    rows = [{**{c: float(row[c]) for c in COLUMNS}, "grain": row["grain"]} for row in samples(300, 302)]
    headers = {"Authorization": f"Bearer {token}", "X-Request-Id": request_id, "Content-Type": "application/json"}
    body = json.dumps({"rows": rows}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{address}/predict", body, headers), timeout=20) as answer:  # noqa: S310
        assert answer.status == 200


@pytest.mark.thorough
def test_one_id_gives_the_whole_path(
    make_project: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAREHOUSE_PASSWORD", SECRET)
    spec = SPEC.replace("candidates: [logistic, lightgbm]", "candidates: [logistic]")
    folder = make_project(spec=spec.replace("model:\n", "features: features.py:build\nmodel:\n"))
    (folder / "features.py").write_text(FEATURES)
    monkeypatch.chdir(folder)
    with modelyard.open_project(folder) as store:
        fire = ask("nightly", "manual", Wanted(key="1", due=0.0), store, actor="user:ana")
        assert fire is not None
        run = run_project(modelyard.load(), store, fire=fire)
    assert run.trace == fire.trace
    capsys.readouterr()
    assert main(["token", "add", "story", "--role", "analyst", "--json"]) == 0
    token = json.loads(capsys.readouterr().out)["token"]
    with serving(folder) as (address, ready):
        assert f"trace={run.trace}" in ready
        predict(address, token, "req-of-ana-1")
        predict(address, token, "req-of-ana-2")

    def told(*asked: str) -> list[dict[str, Any]]:
        assert main(["logs", *asked, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    path = [
        ("ledger", "fire.queued"),
        ("ledger", "run.started"),
        ("ledger", "step.started"),
        ("stdout", ""),
        ("features", ""),
        ("ledger", "alias.moved"),
        ("ledger", "run.finished"),
        ("server", ""),
        ("requests", ""),
    ]
    for name in (run.id, run.trace, fire.id, "req-of-ana-2"):
        found = told(name)
        assert [line["time"] for line in found] == sorted(line["time"] for line in found)
        assert {line["trace"] for line in found} == {run.trace}
        firsts = list(dict.fromkeys((line["logger"], line.get("event", "")) for line in found))
        assert [one for one in firsts if one in path] == path, name
        requests = [line["request"] for line in found if line["logger"] == "requests"]
        assert requests == (["req-of-ana-2"] if name.startswith("req") else ["req-of-ana-1", "req-of-ana-2"])
    assert [line["message"] for line in told(run.id, "--step", "features") if line["logger"] == "stdout"] == [
        "reading with [redacted]"
    ]
    assert main(["logs"]) == 0
    text = capsys.readouterr().out
    assert "connected as me:[redacted]" in text
    assert "2 rows of story answered in" in text

    assert SECRET not in text
    for file in folder.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
    assert main(["logs", "run-0"]) == 2
    assert "error[id-not-found]" in capsys.readouterr().err
