"""Backfill: every partition of a range, side by side, once each, whatever fails or is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

import modelyard
from modelyard._kit.errors import ModelyardError, NotFound, StepFailed, UserError
from modelyard.api import open_project
from modelyard.cli.main import main
from modelyard.pipeline.backfill import Done, backfill, planned
from modelyard.pipeline.bisect import asked, bisect

NOW = datetime(2026, 3, 1, 0, 30, tzinfo=UTC).timestamp()
FILE = """\
project: days
retries: 0
steps:
  prices: {function: own.py:prices}
  fetch:
    function: own.py:fetch
    inputs: {prices: prices}
    partition: {every: daily, start: 2026-01-30}
  clean: {function: own.py:clean, inputs: {x: fetch}, partition: {every: daily, start: 2026-02-01}}
  report: {function: own.py:report, inputs: {x: clean}}
  region: {function: own.py:region, partition: {values: [north, south]}}
"""
OWN = """\
import os, pathlib, time
def prices(): return 2
def fetch(partition, prices):
    with open("calls.txt", "a") as calls:
        calls.write(partition + "\\n")
    bad = pathlib.Path("bad.txt")
    if bad.exists() and partition in bad.read_text():
        raise ValueError(f"no data of {partition}")
    time.sleep(float(os.environ.get("SLOW", "0")))
    return [partition, prices]
def clean(partition, x): return x
def report(x): return x
def region(partition): return partition
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "modelyard.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls(project: Path) -> list[str]:
    file = project / "calls.txt"
    return sorted(file.read_text().split()) if file.exists() else []


def fill(project: Path, first: str = "", last: str = "", step: str = "fetch") -> Sequence[Done]:
    work = planned(modelyard.load(), step, first=first, last=last, now=NOW)
    with open_project(project) as store:
        return backfill(work, store)[1]


def test_the_plan_of_a_backfill_has_the_partitions_and_what_they_need(project: Path) -> None:
    work = planned(modelyard.load(), "fetch", first="2026-01-31", last="2026-02-02", now=NOW)
    assert [step.name for step in work.plan.steps] == [
        "prices",
        "fetch@2026-01-31",
        "fetch@2026-02-01",
        "fetch@2026-02-02",
        "clean@2026-02-01",
        "clean@2026-02-02",
    ]
    assert (work.along, work.partitions[0], work.partitions[-1]) == (("clean",), "2026-01-31", "2026-02-02")
    assert {step.resources.own_process for step in work.plan.steps if "@" in step.name} == {True}
    assert len(planned(modelyard.load(), "clean", now=NOW).partitions) == 28
    assert [s.name for s in planned(modelyard.load(), "region", now=NOW).plan.steps] == ["region@north", "region@south"]


def test_a_backfill_runs_each_partition_once_and_a_run_finds_them(project: Path) -> None:
    done = fill(project, "2026-02-26")
    assert [one.partition for one in done if one.step == "fetch"] == ["2026-02-26", "2026-02-27", "2026-02-28"]
    assert {one.status for one in done} == {"ran"}
    assert calls(project) == ["2026-02-26", "2026-02-27", "2026-02-28"]
    more = fill(project, "2026-02-25")
    assert [one.status for one in more] == ["ran", "cached", "cached", "cached"] * 2
    assert len(calls(project)) == 4


def test_a_partition_that_fails_does_not_stop_the_others(project: Path) -> None:
    (project / "bad.txt").write_text("2026-02-02")
    done = fill(project, "2026-02-01", "2026-02-04")
    assert [one.status for one in done] == ["ran", "failed", "ran", "ran", "ran", "waits", "ran", "ran"]
    assert "no data of 2026-02-02" in done[1].error["message"]
    (project / "bad.txt").unlink()
    again = fill(project, "2026-02-01", "2026-02-04")
    assert [one.status for one in again] == ["cached", "ran", "cached", "cached"] * 2
    assert calls(project) == ["2026-02-01", "2026-02-02", "2026-02-02", "2026-02-03", "2026-02-04"]


def test_what_the_partitions_need_fails_as_itself(project: Path) -> None:
    (project / "own.py").write_text(OWN.replace("def prices(): return 2", "def prices(): raise ValueError('none')"))
    with pytest.raises(StepFailed, match="none"):
        fill(project, "2026-02-01", "2026-02-04")
    assert calls(project) == []


@pytest.mark.parametrize(
    ("step", "first", "code", "words"),
    [
        ("fetsh", "", "step-not-found", "`fetch`"),
        ("report", "", "step-not-partitioned", "fetch, clean, region"),
        ("fetch", "2026-01-29", "partition-range", "2026-01-29 is before it"),
        ("fetch", "2026-03-01", "partition-range", "no partition from"),
        ("region", "2026-02-01", "partition-range", "by values"),
    ],
)
def test_what_cannot_be_filled(step: str, first: str, code: str, words: str, project: Path) -> None:
    with pytest.raises((UserError, NotFound)) as error:
        planned(modelyard.load(), step, first=first, now=NOW)
    assert error.value.code == code
    assert words in f"{error.value.problem.message} {error.value.problem.hint}"


def test_as_it_is_typed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backfill", "fetch", "--from", "2026-02-01", "--to", "2026-02-02"]) == 0
    out, err = capsys.readouterr()
    assert "2 partitions of fetch, with clean: 4 ran" in out
    assert "fetch@2026-02-01" in err
    (project / "bad.txt").write_text("2026-02-03")
    assert main(["backfill", "fetch", "--from", "2026-02-01", "--to", "2026-02-03", "--json", "--workers", "1"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [one["status"] for one in said["partitions"]] == ["cached", "cached", "failed", "cached", "cached", "waits"]
    assert main(["backfill", "fetch", "--from", "2026-02-01", "--to", "2026-02-03"]) == 1
    out, _ = capsys.readouterr()
    assert "no data of 2026-02-03" in out
    assert "4 there already, 1 failed, 1 waiting" in out
    assert main(["backfill", "fetch", "--from", "2026-02-05", "--to", "2026-02-03"]) == 2
    assert "error[partition-range]" in capsys.readouterr().err
    assert main(["show"]) == 0
    assert "fetch@2026-02-02" in capsys.readouterr().out


@pytest.mark.slow
def test_a_backfill_that_is_killed_goes_on_where_it_was(project: Path) -> None:
    command = [sys.executable, "-m", "modelyard", "backfill", "fetch", "--from", "2026-01-30", "--to", "2026-02-18"]
    killed = 0
    for patience in (3, 7, 11):
        running = subprocess.Popen([*command, "--workers", "2"], env={**os.environ, "SLOW": "0.05"})
        while running.poll() is None and len(calls(project)) < patience:
            time.sleep(0.01)
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            killed += 1
        running.wait(60)
    assert killed == 3
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    called = calls(project)
    assert len(set(called)) == 20
    # Only what was under way in one of the two workers when a kill came ran again.
    assert len(called) - 20 <= 2 * killed
    with open_project(project) as store:
        finished = [e.step for e in store.ledger.events(kinds=("step.finished",)) if e.step.startswith("fetch@")]
    assert len(finished) == len(set(finished)) == 20


def test_a_budget_that_is_spent_stops_it(project: Path) -> None:
    from modelyard.records import Budget, Prices

    work = planned(modelyard.load(), "fetch", first="2026-02-01", now=NOW)
    budget = Budget(prices=Prices(cpu_hour=1e9), per_run=1e-9)
    with open_project(project) as store, pytest.raises(ModelyardError) as error:
        backfill(work, store, budget=budget)
    assert error.value.code == "budget-spent"


def test_a_backfill_is_no_run_that_bisect_compares_with(project: Path) -> None:
    def ran() -> str:
        with contextlib.suppress(ModelyardError):
            modelyard.run(project / "modelyard.yaml")
        with open_project(project) as store:
            return store.ledger.runs(limit=1)[0].id

    good = ran()
    fill(project, "2026-02-01", "2026-02-02")
    (project / "own.py").write_text(OWN.replace("def report(x): return x", "def report(x): raise ValueError(x)"))
    fill(project, "2026-02-03", "2026-02-04")
    bad = ran()
    (project / "bad.txt").write_text("2026-02-05")
    fill(project, "2026-02-05", "2026-02-05")
    with open_project(project) as store:
        backfills = [run.id for run in store.ledger.runs() if run.id not in (good, bad)]
        assert len(backfills) == 3
        found = bisect(store, asked())
        assert (found.last_good, found.first_bad, found.between) == (good, bad, ())
        assert [one.run for one in found.judged] == [good, bad]
        # Whoever names one knows why.
        assert bisect(store, asked(), good=backfills[-1], bad=bad).last_good == backfills[-1]


def test_what_a_backfill_made_is_shown_whichever_run_is_the_newest(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(project, "2026-02-01", "2026-02-02")
    modelyard.run(project / "modelyard.yaml")
    capsys.readouterr()
    assert main(["show", "fetch@2026-02-01"]) == 0
    out, err = capsys.readouterr()
    assert "fetch@2026-02-01  succeeded" in out
    with open_project(project) as store:
        newest, filled = (run.id for run in store.ledger.runs())
    assert f"of {filled}" in err
    # The newest run goes first, and one that is named alone.
    assert main(["show", "prices"]) == 0
    assert main(["show", "--run", newest, "fetch@2026-02-01"]) == 2
    err = capsys.readouterr().err
    assert f"modelyard show {filled} fetch@2026-02-01" in err
    # And the other way round, after a backfill.
    fill(project, "2026-02-03", "2026-02-03")
    assert main(["show", "report"]) == 0
    assert f"of {newest}" in capsys.readouterr().err
    # A name that nobody had is answered with those near it, of older runs too.
    assert main(["show", "fetch@2026-02-10"]) == 2
    assert "`fetch@2026-02-0" in capsys.readouterr().err
