"""A team asks what should answer for its model on this machine, and the server does as was decided."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import modelyard
from modelyard.cli.main import main
from tests.stories.conftest import LOGISTIC, samples
from tests.typed import typed


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of the verb, and what it says as JSON."""
    capsys.readouterr()
    code = main(["runtimes", "--seconds", "0.1", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def cells(payload: dict[str, Any]) -> dict[tuple[str, int, int], dict[str, Any]]:
    found = payload["result"]["evidence"]["details"]["cells"]
    return {(one["runtime"], one["threads"], one["batch"]): one for one in found}


def declare(folder: Path, text: str, spec: str = LOGISTIC) -> None:
    (folder / "modelyard.yaml").write_text(f"{spec}deploy: {{runtime: {text}}}\n")


@contextmanager
def served(folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Give the address of a server of the champion, the header of an admin, and what it said until it was ready."""
    capsys.readouterr()
    assert main(["token", "add", f"t{time.monotonic_ns()}", "--role", "admin", "--json"]) == 0
    secret = json.loads(capsys.readouterr().out)["token"]
    line = [sys.executable, "-m", "modelyard", "serve", "--port", "0"]
    server = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=folder)
    said: list[str] = []
    try:
        url = ""
        for one in server.stderr or ():
            said.append(one)
            if found := re.search(r"ready (http://127\.0\.0\.1:\d+)", one):
                url = found[1]
                break
        assert url, said
        yield url, {"authorization": f"Bearer {secret}"}, said
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)
        if server.stderr:
            server.stderr.close()


def asked(url: str, headers: dict[str, str]) -> list[float]:
    rows = [{k: v for k, v in row.items() if k not in ("id", "diagnosis")} for row in samples(0, 50)]
    rows = [{k: v if k == "grain" else float(v) for k, v in row.items()} for row in rows]
    answer = httpx.post(f"{url}/predict", json={"rows": rows}, headers=headers)
    assert answer.status_code == 200, answer.text
    return [one["probabilities"]["malignant"] for one in answer.json()["predictions"]]


@pytest.mark.thorough
def test_a_forest_is_dear_in_its_library_and_is_served_by_what_is_cheap(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    declare(ran, "{p99: 5s, memory: 2GB, size: 1GB}", LOGISTIC.replace("logistic", "random_forest"))
    assert main(["run"]) == 0
    code, payload = measured(capsys)
    assert code == 0
    by, details = cells(payload), payload["result"]["evidence"]["details"]
    # Not a matter of a busy machine: a call of scikit-learn costs so much more.
    assert by["native", 1, 1]["cpu_us"] > 10 * by["onnxruntime", 1, 1]["cpu_us"]
    assert by["native", 1, 1]["loss"] < 1e-4
    assert payload["runtime"]["name"] == "onnxruntime"
    assert any("is the model to the last byte" in note for note in details["notes"])
    assert set(details["left_out"]) == {"int8", "kernels"}
    assert {"released", "native", "onnxruntime"} <= set(details["metric"])

    # It is in the ledger, which holds, and is shown again without measuring.
    with modelyard.open_project(ran) as store:
        (event,) = store.ledger.events(kinds=("runtimes.finished",))
        assert event.payload["model"] == payload["model"] == event.payload["result"]["evidence"]["model"]
        assert len(event.payload["result"]["evidence"]["data"]) == 2
        assert store.ledger.verify() == []
    capsys.readouterr()
    assert main(["runtimes", "--last"]) == 0
    assert re.search(r"✓ onnxruntime on \d threads? takes", capsys.readouterr().out)

    with served(ran, capsys) as (url, headers, said):
        now = httpx.get(f"{url}/stats", headers=headers).json()["runtime"]
        assert now == {"name": "onnxruntime", "threads": payload["runtime"]["threads"], "decided": True}
        assert any("runtime=onnxruntime" in line for line in said)
        assert len(asked(url, headers)) == 50


@pytest.mark.thorough
def test_small_weights_cost_answers_and_are_taken_only_if_that_is_allowed(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    with served(ran, capsys) as (url, headers, _):
        exact = asked(url, headers)
        code, payload = measured(capsys)
        assert code == 0
        small = cells(payload)["int8", 1, 1]
        assert small["loss"] > 1e-4, "weights of 8 bits answer otherwise"
        assert payload["runtime"]["name"] != "int8"

        declare(ran, "int8")
        code, payload = measured(capsys)
        assert (code, payload["runtime"]["name"], payload["forced"]) == (0, "int8", True)
        # The server that runs takes it, and answers a little otherwise.
        until = time.monotonic() + 15
        while httpx.get(f"{url}/stats", headers=headers).json()["runtime"]["name"] != "int8":
            assert time.monotonic() < until
            time.sleep(0.05)
        rough = asked(url, headers)
        far = max(abs(a - b) for a, b in zip(exact, rough, strict=True))
        assert 0 < far < 0.2


@pytest.mark.thorough
def test_what_cannot_be_met_changes_nothing_and_is_explained(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    declare(ran, "{memory: 1kB, size: 10B}")
    code, payload = measured(capsys)
    assert code == 1
    assert payload["runtime"] is None
    assert re.match(r"no runtime meets the limits; the nearest is \w+ on \d thread", payload["result"]["reason"])
    assert re.search(r"its memory of [\d.]+ [kM]B is [\d,.]+ times the limit of 1 kB", payload["result"]["reason"])
    with served(ran, capsys) as (url, headers, _):
        assert httpx.get(f"{url}/stats", headers=headers).json()["runtime"]["decided"] is False


def test_limits_that_were_never_measured_are_told(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    declare(ran, "onnxruntime")
    with served(ran, capsys) as (_, _, said):
        assert any("`deploy.runtime` is declared, and was not measured for this model" in line for line in said)


@pytest.mark.thorough
def test_rows_that_are_gone_are_drawn_and_the_library_is_left_out(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    for file in (ran / ".modelyard" / "tables").rglob("*.parquet"):
        file.unlink()
    code, payload = measured(capsys)
    assert code == 0
    details = payload["result"]["evidence"]["details"]
    assert "are not there any more" in details["left_out"]["native"]
    assert details["rows"].startswith("1,000 rows drawn by the profile")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--last"], ["error[runtimes-not-measured]", "hint: modelyard runtimes"]),
        (["0000"], ["error[model-not-found]", "no model `0000`"]),
        (["champion", "--endpoint", "tumour"], ["error[endpoint-not-found]", "tumours"]),
        (["--seconds", "x"], ["error[cli-value]", "--seconds is `x`"]),
    ],
)
def test_what_cannot_be_used_is_said(ran: Path, arguments: list[str], says: list[str]) -> None:
    done = typed(ran, "runtimes", *arguments)
    assert done.returncode == 2
    for one in says:
        assert one in done.stderr


def test_a_runtime_that_is_none_is_named_with_the_near_one(ran: Path) -> None:
    declare(ran, "onnxruntim")
    done = typed(ran, "runtimes")
    assert done.returncode == 2
    assert "error[spec-bad-value]" in done.stderr
    assert "did you mean `onnxruntime`?" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_who_stops_it_finds_everything_as_it_was(ran: Path, tmp_path: Path, number: signal.Signals) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    line = [sys.executable, "-m", "modelyard", "runtimes", "--seconds", "20"]
    environment = {**os.environ, "TMPDIR": str(place)}
    verb = subprocess.Popen(line, cwd=ran, stderr=subprocess.PIPE, text=True, env=environment)
    assert verb.stderr is not None
    for said in verb.stderr:
        if "test rows" in said:
            break
    until = time.monotonic() + 20
    while not list(place.glob("modelyard-runtime-*")):
        assert time.monotonic() < until
        time.sleep(0.02)
    verb.send_signal(number)
    verb.communicate(timeout=20)
    assert verb.returncode == (130 if number == signal.SIGINT else 143)
    # ONNX Runtime has a file of its own there.
    assert list(place.glob("modelyard-*")) == []
    with modelyard.open_project(ran) as store:
        assert not list(store.ledger.events(kinds=("runtimes.finished",)))
