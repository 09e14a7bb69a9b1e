"""`modelyard predict` end to end: as it is declared, on standard input and output, killed again and again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from modelyard.cli.main import main
from modelyard.records import TableVersion, values_of
from modelyard.store import open_store
from tests.stories.conftest import COLUMNS, SPEC, samples, write_csv

BIG = 200_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a champion."""
    folder = tmp_path_factory.mktemp("project")
    write_csv(folder / "data" / "one.csv", samples(0, 300))
    (folder / "modelyard.yaml").write_text(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run"]) == 0
    return folder


@pytest.mark.slow
def test_a_table_is_answered_and_told_of(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    write_csv(Path("new.csv"), samples(300, 340))
    capsys.readouterr()
    assert main(["predict", "new.csv", "-o", "answered.parquet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["resumed"]) == (40, 0)
    assert told["digest"] == hashlib.sha256(Path("answered.parquet").read_bytes()).hexdigest()
    with open_store(trained) as store:
        event = list(store.ledger.events(kinds=("predict.finished",)))[-1]
    assert event.payload["rows"] == 40
    assert event.payload["output_digest"] == told["digest"]
    assert main(["predict", "new.csv"]) == 0
    shown = pl.read_csv(io.StringIO(capsys.readouterr().out))
    file = pl.read_parquet("answered.parquet")
    assert shown["prediction"].to_list() == file["prediction"].to_list()
    raw = io.TextIOWrapper(io.BytesIO(Path("new.csv").read_bytes()))
    monkeypatch.setattr(sys, "stdin", raw)
    assert main(["predict", "-", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prediction"] for line in lines] == file["prediction"].to_list()
    with open_store(trained) as store:
        run = store.ledger.run(store.ledger.runs(limit=1)[0].id)
        assert run is not None
        tables = values_of(run, TableVersion)
    table = next(t for t in tables if {*COLUMNS, "grain"} <= {c.name for c in t.columns})
    # By its name alone it is no table, but the address is told.
    assert main(["predict", table.name, "-o", "table.csv"]) == 2
    assert f"`{table.address}`" in capsys.readouterr().err
    assert main(["predict", table.address, "-o", "table.csv"]) == 0
    assert pl.read_csv("table.csv").height == table.rows


def _killed(command: list[str], folder: Path, after: float) -> int:
    """Run, kill when a part has come since, or earlier, and return the exit code."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    before = len(list(folder.glob("part-*")))
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until and len(list(folder.glob("part-*"))) == before:
        os.sched_yield()
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("output", ["killed.parquet", "killed.csv", "killed/"])
def test_killed_again_and_again_the_output_has_the_same_bytes(
    trained: Path, monkeypatch: pytest.MonkeyPatch, output: str, big: Path
) -> None:
    monkeypatch.chdir(trained)
    random_ = random.Random(output)  # noqa: S311 - when to kill, no secret
    command = [sys.executable, "-m", "modelyard", "predict", str(big), "-o"]
    whole = output.replace("killed", "whole")
    subprocess.run([*command, whole], check=True, stderr=subprocess.DEVNULL)
    folder, kills = Path(f".{output.rstrip('/')}.scoring"), 0
    while not Path(output).exists():
        kills += _killed([*command, output], folder, random_.random() * 0.05) == -signal.SIGKILL
        assert kills < 60
    assert kills >= 3
    # Under its name there is all of it as soon as there is anything.
    assert _digest(Path(output)) == _digest(Path(whole))
    if not output.endswith(".csv"):
        made = pl.scan_parquet(f"{output}*.parquet" if output.endswith("/") else output)
        assert made.select("n").collect()["n"].to_list() == list(range(BIG))


def _digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.fixture(scope="module")
def big(trained: Path) -> Path:
    """A table of so many parts that a kill meets one of them."""
    path = trained / "big.parquet"
    rows = pl.concat([pl.DataFrame(samples(300, 500))] * (BIG // 200))
    rows = rows.with_columns(pl.col(COLUMNS).cast(pl.Float64)).with_row_index("n")
    rows.with_columns(pl.lit(0.5).alias(f"more{i}") for i in range(60)).write_parquet(path)
    return path


@pytest.mark.slow
def test_a_polite_stop_leaves_only_what_the_next_attempt_needs(
    trained: Path, monkeypatch: pytest.MonkeyPatch, big: Path
) -> None:
    monkeypatch.chdir(trained)
    command = [sys.executable, "-m", "modelyard", "predict", str(big), "-o", "stopped.csv"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    folder = Path(".stopped.csv.scoring")
    while process.poll() is None and not list(folder.glob("part-*")):
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    last = said.splitlines()[-1]
    assert last.startswith("stopped by Ctrl-C; ")
    assert f"`{folder}`" in last
    assert last.endswith(f"modelyard predict {big} -o stopped.csv")
    assert not Path("stopped.csv").exists()
    assert not list(folder.glob(".part-*"))
    again = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    assert "were there from an attempt" in again.stderr
    assert not folder.exists()
