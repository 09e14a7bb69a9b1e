"""Two runs of a partitioned project are compared step by step, although each has a partition of its own."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.pipeline.test_backfill import FILE, OWN

import modelyard
from modelyard._kit.errors import ModelyardError, NotFound
from modelyard.api import open_project
from modelyard.pipeline.bisect import Bisected, asked, bisect
from modelyard.pipeline.compose import compose
from modelyard.pipeline.run import run


class Days:
    """A project with a partition a day, run once a day."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.day = 0
        self.write(OWN, FILE)

    def write(self, own: str, file: str) -> None:
        (self.folder / "own.py").write_text(own)
        (self.folder / "modelyard.yaml").write_text(file)

    def run(self) -> str:
        self.day += 1
        plan = compose(modelyard.load(), now=datetime(2026, 3, self.day, 0, 30, tzinfo=UTC).timestamp())
        with open_project(self.folder) as store:
            with contextlib.suppress(ModelyardError):
                run(plan, store)
            return store.ledger.runs(limit=1)[0].id

    def found(self, **question: str) -> Bisected:
        with open_project(self.folder) as store:
            return bisect(store, asked(**question))  # type: ignore[arg-type]


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Days:
    monkeypatch.chdir(tmp_path)
    return Days(tmp_path)


def test_another_day_is_no_change(days: Days) -> None:
    good = days.run()
    days.write(OWN.replace("def report(x): return x", "def report(x): raise ValueError(x)"), FILE)
    bad = days.run()
    found = days.found()
    assert (found.last_good, found.first_bad, found.kinds, found.target) == (good, bad, ("code",), "report")
    assert [change.functions for change in found.changes] == [("report",)]


def test_what_changed_in_a_partitioned_step_is_named(days: Days) -> None:
    days.run()
    days.write(OWN.replace("def clean(partition, x): return x", "def clean(partition, x): raise ValueError(x)"), FILE)
    days.run()
    found = days.found()
    assert (found.kinds, found.target) == (("code",), "clean@2026-03-01")
    assert [change.functions for change in found.changes] == [("clean",)]


def test_a_step_is_asked_for_without_its_day(days: Days) -> None:
    days.run()
    good = days.run()
    (days.folder / "bad.txt").write_text("2026-03-02")
    bad = days.run()
    found = days.found(step="fetch")
    assert (found.last_good, found.first_bad, found.target) == (good, bad, "fetch@2026-03-02")
    assert (found.kinds, [one.verdict for one in found.judged]) == ((), ["good", "good", "bad"])
    with pytest.raises(NotFound) as error:
        days.found(step="fecth")
    assert "`fetch`" in str(error.value)


def test_another_value_is_a_change(days: Days) -> None:
    days.run()
    own = OWN.replace(
        "def region(partition): return partition", "def region(partition): return 1 / (partition != 'west')"
    )
    days.write(own, FILE.replace("[north, south]", "[north, west]"))
    days.run()
    found = days.found(step="region")
    assert found.target == "region@west"
    assert [(change.kind, change.what) for change in found.changes] == [("parameters", "step `region@west` is new")]
