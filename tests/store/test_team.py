"""Two machines, one project: each a folder of its own, one Postgres, one folder of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="no psycopg: pip install 'modelyard[postgres]'")

from modelyard.store import LocalStore, open_store
from modelyard.store.opening import VARIABLE

pytestmark = pytest.mark.cluster

STEPS = """
import polars as pl

def rows(n: int) -> pl.DataFrame:
    return pl.DataFrame({"x": list(range(n))})

def total(table: pl.LazyFrame) -> int:
    return table.collect()["x"].sum()
"""
FILE = """
project: counting
steps:
  rows: {function: "steps.py:rows", params: {n: 10}, resources: {own_process: true}}
  total: {function: "steps.py:total", inputs: {table: rows}}
"""


@pytest.fixture
def machines(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.delenv(VARIABLE, raising=False)
    for name in ("box-1", "box-2"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "steps.py").write_text(STEPS)
        (folder / "modelyard.yaml").write_text(f"{FILE}store: {address}&files={tmp_path}/team\n")
    return tmp_path / "box-1", tmp_path / "box-2"


def yard(folder: Path, *words: str, code: int = 0, **variables: str) -> str:
    line = [sys.executable, "-m", "modelyard", *words]
    env = {**os.environ, **variables}
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder, env=env, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if not code else done.stderr


def test_what_one_machine_did_the_other_finds(machines: tuple[Path, Path]) -> None:
    one, two = machines
    assert "2 will run" in yard(one, "plan")
    assert "nothing was run" in yard(two, "runs", code=2)
    yard(one, "run")
    assert "2 cached" in yard(two, "plan")
    assert '"status":"succeeded"' in yard(two, "runs", "--json").replace(" ", "")
    assert "total" in yard(two, "show", "--json")
    events = [json.loads(line) for line in yard(two, "run", "--json").splitlines()]
    assert [e["kind"] for e in events if e["kind"].startswith("step.")] == ["step.cached", "step.cached"]
    assert "chain and kept tables hold" in yard(one, "verify", "--ledger")
    assert not list(one.glob(".modelyard/*.db"))
    with open_store(two) as store:
        assert [run.status for run in store.ledger.runs()] == ["succeeded", "succeeded"]


def test_one_machine_waits_for_the_other(machines: tuple[Path, Path]) -> None:
    one, two = machines
    with open_store(one) as store, store.hold("run", who={"run": "run-1"}):
        told = yard(two, "run", code=4)
    assert "store-held" in told
    assert "run-1" in told
    yard(two, "run")


def test_the_pages_are_read_from_the_shared_store(machines: tuple[Path, Path]) -> None:
    one, two = machines
    yard(one, "run")
    line = [sys.executable, "-m", "modelyard.web", "--project", str(two), "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as pages:
        try:
            assert pages.stderr is not None
            said = pages.stderr.readline()
            address = said.partition(" at ")[2].partition(" ")[0]
            with urllib.request.urlopen(address, timeout=60) as page:  # noqa: S310 - our own loopback address
                assert "counting" in page.read().decode()
        finally:
            pages.terminate()


def test_one_may_work_alone(machines: tuple[Path, Path]) -> None:
    one, two = machines
    yard(one, "run", **{VARIABLE: "local"})
    assert (one / ".modelyard" / "ledger.db").exists()
    assert "nothing was run" in yard(two, "runs", code=2)


def test_a_project_moves_with_its_chain(machines: tuple[Path, Path]) -> None:
    one, two = machines
    yard(one, "run", **{VARIABLE: "local"})
    with LocalStore(one) as here, open_store(one) as there:
        there.ledger.restore(here.ledger.events())  # type: ignore[attr-defined]
        assert there.ledger.head() == here.ledger.head()
    for part in ("blobs", "tables"):
        (one / ".modelyard" / part).rename(one.parent / "team" / part)
    assert "2 cached" in yard(two, "plan")
    assert "chain and kept tables hold" in yard(two, "verify", "--ledger")


def test_a_run_whose_machine_died_is_gone_on_with_by_the_other(machines: tuple[Path, Path]) -> None:
    one, two = machines
    slow = STEPS.replace("return table", 'import time; time.sleep(float(open("pause").read()))\n    return table')
    for folder, pause in ((one, "600"), (two, "0")):
        (folder / "steps.py").write_text(slow)
        (folder / "pause").write_text(pause)
    line = [sys.executable, "-m", "modelyard", "run", "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=one) as runner:
        assert runner.stdout is not None
        events: list[dict[str, Any]] = []
        while not (events and events[-1]["kind"] == "step.started" and events[-1]["step"] == "total"):
            events.append(json.loads(runner.stdout.readline()))
        runner.kill()
    for _ in range(600):
        if "store-held" not in (told := run_quietly(two)):
            break
        time.sleep(0.1)
    assert told == ""
    with open_store(two) as store:
        new, old = store.ledger.runs()
        assert (new.status, old.status) == ("succeeded", "interrupted")
        whole = store.ledger.run(new.id)
        assert whole is not None
        assert [(step.name, step.status) for step in whole.steps] == [("rows", "cached"), ("total", "succeeded")]
        assert store.ledger.verify() == []


LOOKS = """
from pathlib import Path

def looks() -> int:
    from modelyard.store import open_store

    with open_store(Path()) as store:
        return len(list(store.ledger.runs()))
"""


def test_a_step_needs_no_network_for_the_store_of_its_run_and_one_for_a_store_that_it_opens(
    machines: tuple[Path, Path], address: str
) -> None:
    one, two = machines
    assert "own_process" in FILE
    yard(one, "run")
    (two / "steps.py").write_text(STEPS + LOOKS)
    step = '  looks: {{function: "steps.py:looks", retries: 0, resources: {{own_process: true{asked}}}}}\n'
    declared = FILE.replace("{", "{{").replace("}", "}}")
    text = f"{declared}{step}store: {address}&files={two.parent}/team\n"
    (two / "modelyard.yaml").write_text(text.format(asked=""))
    told = yard(two, "run", code=4)
    assert "store-unreachable" in told
    assert "give it `network: true`" in told
    (two / "modelyard.yaml").write_text(text.format(asked=", network: true"))
    yard(two, "run")


def run_quietly(folder: Path) -> str:
    line = [sys.executable, "-m", "modelyard", "run", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=folder, timeout=120)
    return done.stderr if done.returncode else ""
