"""Partitioned steps: which partitions a run has, and what takes what."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path

import pytest

import modelyard
from modelyard import Flow
from modelyard._kit.errors import SpecError, UserError
from modelyard._kit.periods import bounds, first_of, last_of, newest_complete, periods
from modelyard.pipeline.compose import compose
from modelyard.pipeline.partitions import Partition, requested

NOW = datetime(2026, 3, 1, 0, 30, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("every", "newest"),
    [("hourly", "2026-02-28T23"), ("daily", "2026-02-28"), ("weekly", "2026-02-16"), ("monthly", "2026-02")],
)
def test_the_newest_complete_period(every: str, newest: str) -> None:
    assert newest_complete(every, NOW) == newest
    begins, ends = bounds(every, newest)
    assert begins < ends <= datetime.fromtimestamp(NOW, UTC)
    # A period is complete in the very moment it ends.
    assert newest_complete(every, ends.timestamp()) == newest
    assert newest_complete(every, ends.timestamp() - 0.001) < newest


def test_periods_over_a_leap_day_a_year_and_month_ends() -> None:
    assert list(periods("daily", "2024-02-28", "2024-03-01")) == ["2024-02-28", "2024-02-29", "2024-03-01"]
    assert list(periods("monthly", "2025-11", "2026-02")) == ["2025-11", "2025-12", "2026-01", "2026-02"]
    assert list(periods("hourly", "2026-12-31T22", "2027-01-01T01"))[-2:] == ["2027-01-01T00", "2027-01-01T01"]
    assert list(periods("weekly", "2025-12-29", "2026-01-05")) == ["2025-12-29", "2026-01-05"]
    # Clocks that change do not: periods are in UTC.
    assert len(list(periods("hourly", first_of("hourly", "2026-03-29"), last_of("hourly", "2026-03-29")))) == 24
    for every in ("hourly", "daily", "weekly", "monthly"):
        names = list(periods(every, first_of(every, "2023-01-01"), first_of(every, "2026-01-01")))
        assert names == sorted(set(names))
        assert all(bounds(every, a)[1] == bounds(every, b)[0] for a, b in itertools.pairwise(names))


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-02-30", "2026-1-1", "26-01-01", "2026-01-01T24", "now", "", "9999-01"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=text or "^$"):
        first_of("daily", text)


def noted(partition: str, x: object = None) -> list[object]:
    return [partition, x]


def over(xs: object) -> object:
    return xs


def test_a_flow_runs_the_newest_partition_and_what_takes_from_it(tmp_path: Path) -> None:
    flow = Flow("f")
    day = flow.step(noted, name="day", partition="daily")
    again = flow.step(noted, name="again", partition={"every": "daily", "start": "2026-01-01"}, x=day)
    flow.step(over, name="all", xs=again)
    plan = flow.plan(now=NOW)
    assert [step.name for step in plan.steps] == ["day@2026-02-28", "again@2026-02-28", "all"]
    assert plan.step("again@2026-02-28").inputs == {"x": "day@2026-02-28"}
    assert plan.step("all").inputs == {"xs": "again@2026-02-28"}
    run = modelyard.run(flow, project=tmp_path)
    today = newest_complete("daily", datetime.now(UTC).timestamp())
    assert run["all"] == [today, [today, None]]


def test_values_all_run_and_are_taken_as_a_list(tmp_path: Path) -> None:
    flow = Flow("f")
    parts = flow.step(noted, name="part", partition=["north", "south"])
    flow.step(over, name="each", xs=[parts, flow.step(over, name="one", xs=1)])
    flow.step(over, name="all", xs=parts)
    run = modelyard.run(flow, project=tmp_path)
    assert run["all"] == [["north", None], ["south", None]]
    assert run["each"] == [["north", None], ["south", None], 1]
    assert [step.name for step in run.steps if "@" in step.name] == ["part@north", "part@south"]


def test_a_flow_says_that_a_function_takes_no_partition() -> None:
    with pytest.raises(UserError) as error:
        Flow("f").step(over, partition="daily", xs=1)
    assert error.value.code == "step-parameter"


def test_no_period_is_complete_before_the_first_has_ended() -> None:
    flow = Flow("f")
    flow.step(noted, partition={"every": "monthly", "start": "2026-03"})
    with pytest.raises(UserError) as error:
        flow.plan(now=NOW)
    assert error.value.code == "partition-none"
    assert "2026-04-01 00:00 UTC" in error.value.problem.message


@pytest.mark.parametrize(
    ("first", "last", "asked"),
    [
        ("2026-02-01", "2026-02-03", ["2026-02-01", "2026-02-02", "2026-02-03"]),
        ("2026-02-26", "", ["2026-02-26", "2026-02-27", "2026-02-28"]),
        ("", "2026-01-02", ["2026-01-01", "2026-01-02"]),
        ("2026-02", "2026-02", [f"2026-02-{day:02}" for day in range(1, 29)]),
        ("2026-02-28T05", "2026-02-28T06", ["2026-02-28"]),
    ],
)
def test_ranges_that_are_asked_for(first: str, last: str, asked: list[str]) -> None:
    assert requested(Partition("daily", "2026-01-01"), "2026-01-01", first, last, NOW, "s") == asked


@pytest.mark.parametrize(
    ("partition", "first", "last", "words"),
    [
        (Partition("daily"), "2026-02-03", "2026-02-01", "no partition from 2026-02-03 to 2026-02-01"),
        (Partition("daily"), "2026-02-03", "2026-03-01", "no complete partition after 2026-02-28"),
        (Partition("daily"), "2026-04-03", "", "no partition from"),
        (Partition("daily"), "yesterday", "", "--from `yesterday`"),
        (Partition("daily"), "2026-02-01", "2026-02-30", "--to `2026-02-30`"),
        (Partition("daily"), "", "2026-02-01", "has no `start`"),
        (Partition("daily", "2026-02-01"), "2026-01-31", "", "2026-01-31 is before it"),
        (Partition("hourly"), "2020-01-01", "", "at most"),
        (Partition(values=("a", "b")), "2026-01-01", "", "by values (a, b)"),
    ],
)
def test_ranges_that_are_refused(partition: Partition, first: str, last: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        requested(partition, partition.start, first, last, NOW, "s")
    assert error.value.code == "partition-range"
    assert words in f"{error.value.problem.message} {error.value.problem.hint}"


FILE = """\
project: p
data: {t: {from: t.csv}}
steps:
  fetch:
    function: own.py:fetch
    partition: {every: daily, start: 2026-01-10}
  clean:
    function: own.py:clean
    inputs: {x: fetch, rows: contract.t#accepted}
    partition: daily
    after: [fetch]
  last: {function: own.py:last, inputs: {x: clean}}
  region: {function: own.py:fetch, partition: {values: [a, b]}}
  regions: {function: own.py:last, inputs: {x: region}}
"""
OWN = """\
import modelyard
def fetch(partition): return partition
@modelyard.step(partition="daily")
def clean(partition, x, rows): return x
def last(x): return x
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "modelyard.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_partitions_of_the_file(project: Path) -> None:
    plan = compose(modelyard.load(), now=NOW)
    steps = {step.name: step for step in plan.steps}
    clean = steps["clean@2026-02-28"]
    assert clean.inputs == {"x": "fetch@2026-02-28", "rows": "contract.t#accepted"}
    assert clean.after == ("fetch@2026-02-28",)
    assert clean.params == {"partition": "2026-02-28"}
    assert steps["last"].inputs == {"x": "clean@2026-02-28"}
    assert steps["regions"].inputs == {"x": ["region@a", "region@b"]}
    assert {name for name in steps if "@" in name} == {
        "fetch@2026-02-28",
        "clean@2026-02-28",
        "region@a",
        "region@b",
    }


def test_a_step_with_the_name_of_a_partition_keeps_its_table_to_itself(project: Path) -> None:
    (project / "own.py").write_text(
        "import polars as pl\n"
        + OWN.replace("return partition", "return pl.DataFrame({'p': [partition]})")
        .replace("return x", "return x.collect().height if hasattr(x, 'collect') else x")
        .replace("def last(x): return x.collect().height if hasattr(x, 'collect') else x", "def last(x): return 1")
    )
    run = modelyard.run()
    made = [step for step in run.steps if step.name.startswith("region@")]
    digests = {step.outputs["value"]["digest"] for step in made}
    assert len(digests) == 2
    assert {step.status for step in modelyard.run().steps} == {"cached"}


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "words"),
    [
        ("    partition: daily\n", "    partition: weekly\n", "step-partition", 9, "are partitioned differently"),
        ("partition: {values: [a, b]}", "partition: {}", "spec-contradiction", 13, "neither"),
        ("{values: [a, b]}", "{values: [a, b], every: daily}", "spec-contradiction", 13, "both"),
        ("{values: [a, b]}", "{values: [a, b], start: 2026-01-01}", "spec-contradiction", 13, "not for"),
        ("{values: [a, b]}", "{values: [a, a]}", "spec-contradiction", 13, "twice"),
        ("{values: [a, b]}", "{values: [a b]}", "spec-bad-value", 13, "letters, digits"),
        ("{values: [a, b]}", "yearly", "spec-bad-value", 13, "yearly"),
        ("start: 2026-01-10", "start: 2026-02-30", "spec-bad-value", 6, "is no time"),
        ("start: 2026-01-10", "start: last week", "spec-bad-value", 6, "a month, day or hour"),
        ("    partition: {every: daily, start: 2026-01-10}\n", "", "step-parameter", 5, 'needs "partition"'),
        ("after: [fetch]", "params: {partition: x}", "spec-contradiction", 11, "is filled in by the runner"),
    ],
)
def test_partitions_that_cannot_be(old: str, new: str, code: str, line: int, words: str, project: Path) -> None:
    text = FILE.replace(old, new, 1)
    assert text != FILE
    (project / "modelyard.yaml").write_text(text)
    with pytest.raises(SpecError) as error:
        compose(modelyard.load(), now=NOW)
    problem = error.value.problems[0]
    assert (problem.code, problem.where) == (code, f"modelyard.yaml:{line}")
    assert words in problem.message
    assert problem.hint


def test_a_run_that_comes_late_handles_what_was_newest_when_it_was_due(project: Path) -> None:
    from modelyard.pipeline.project import run_project
    from modelyard.records import Draft

    with modelyard.open_project(project) as store:
        payload = {"id": "f", "key": "k", "trigger": "t", "kind": "schedule", "due": NOW, "trace": "0" * 32}
        store.ledger.append(Draft(kind="fire.queued", payload=payload))
        run = run_project(modelyard.load(), store, fire=store.ledger.fire("f"))
    assert run.step("fetch@2026-02-28").status == "succeeded"
