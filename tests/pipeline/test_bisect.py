"""A bad change among many runs is found, and named for what it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.pipeline.history import History

from modelyard._kit.errors import NotFound, UserError
from modelyard.pipeline import bisect as bisecting
from modelyard.pipeline.bisect import Bisected, asked, bisect
from modelyard.pipeline.environment import Environment, environment
from modelyard.pipeline.sources import Source, changed_files, read_source
from modelyard.records import Run
from modelyard.store import Store

RUNS = 20


def worse_code(history: History) -> None:
    history.edit("helpers.py", 'nw.col("price") < LIMIT', 'nw.col("price") > LIMIT')


def worse_data(history: History) -> None:
    history.orders("dear", range(100, 400), first=100_000)


def worse_parameters(history: History) -> None:
    spec = (history.folder / "modelyard.yaml").read_text()
    weight = spec.partition("weight: ")[2].partition("}")[0]
    history.edit("modelyard.yaml", f"weight: {weight}", "weight: 0.25")


def recorded(history: History, bad: int, spoil: Callable[[History], None], count: int = RUNS) -> list[Run]:
    """Record runs, each with one change; the one of run `bad` is bad."""
    runs = [history.run()]
    for number in range(1, count):
        if number == bad:
            spoil(history)
            runs.append(history.run())
        else:
            runs.append(history.harmless())
    return runs


def found(history: History, **question: object) -> Bisected:
    with history.store() as store:
        return bisect(store, asked(**question))  # type: ignore[arg-type]


def test_a_bad_change_of_a_feature_function_is_named(tmp_path: Path) -> None:
    history = History(tmp_path)
    runs = recorded(history, 12, worse_code)
    result = found(history, check="share")
    assert result.first_bad == runs[12].id
    assert result.last_good == runs[11].id
    assert result.kinds == ("code",)
    assert result.step == "features"
    [change] = result.changes
    assert change.files == ("helpers.py",)
    assert change.functions == ("marked",)
    assert '-    return rows.with_columns(good=nw.col("price") < LIMIT)' in change.diff
    assert '+    return rows.with_columns(good=nw.col("price") > LIMIT)' in change.diff
    assert result.steady
    assert len(result.judged) == RUNS
    # The same run is found by what was measured, and between runs that are named.
    by_metric = found(history, metric="share_good", worse_than=0.5)
    assert (by_metric.first_bad, by_metric.kinds) == (runs[12].id, ("code",))
    assert by_metric.judged[0].value == 1.0
    with history.store() as store:
        named = bisect(store, asked(check="share"), good=runs[3].id, bad=runs[17].id)
    assert named.first_bad == runs[12].id
    assert named.judged[0].run == runs[3].id


def test_a_comment_is_no_change_of_code(tmp_path: Path) -> None:
    history = History(tmp_path)
    good = history.run()
    history.edit("features.py", "    return rows\n", "    # as they are\n    return rows\n")
    worse_code(history)
    bad = history.run()
    result = found(history, check="share")
    assert (result.last_good, result.first_bad) == (good.id, bad.id)
    [change] = result.changes
    assert change.files == ("helpers.py",)
    assert "as they are" not in change.diff
    with history.store() as store:
        assert changed_files(*(kept(store, run) for run in (good, bad)), store) == ["helpers.py"]


def kept(store: Store, run: Run) -> Source:
    source = read_source(run.step("features").source, store)
    assert source is not None
    return source


@pytest.mark.parametrize(
    ("spoil", "kind", "step", "says"),
    [
        (worse_data, "data", "load.orders", "rows"),
        (worse_parameters, "parameters", "score", "`weight` "),
    ],
)
def test_other_changes_are_named_for_what_they_are(
    tmp_path: Path, spoil: Callable[[History], None], kind: str, step: str, says: str
) -> None:
    history = History(tmp_path)
    runs = recorded(history, 5, spoil, count=8)
    result = found(history, check="share")
    assert result.first_bad == runs[5].id
    assert result.kinds == (kind,)
    assert result.step == step
    assert says in result.changes[0].what
    if kind == "data":
        table = next(t for t in result.tables if t.name == "load.orders.table")
        assert table.after - table.before == 300
    else:
        assert result.changes[0].values["weight"][1] == 0.25


def test_a_changed_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path)
    good = history.run()
    libraries = {**environment().libraries, "polars": "9.9.9"}
    other = msgspec.structs.replace(environment(), libraries=libraries)
    assert isinstance(other, Environment)
    monkeypatch.setattr(sys.modules["modelyard.pipeline.run"], "environment", lambda: other)
    # What the library does otherwise now.
    monkeypatch.setattr("polars.Series.mean", lambda _: 0.1)
    bad = history.run()
    result = found(history, check="share")
    assert (result.first_bad, result.last_good) == (bad.id, good.id)
    assert result.kinds == ("environment",)
    assert result.changes[0].values == {"polars": (environment().libraries["polars"], "9.9.9")}


def test_a_step_that_fails_is_found_and_runs_without_a_verdict_are_passed_over(tmp_path: Path) -> None:
    history = History(tmp_path)
    good = history.run()
    # The features cannot be made, so that nobody knows whether the score would have failed.
    history.edit("features.py", "import helpers", "import helpers, gone")
    unknown = history.run()
    history.edit("features.py", "import helpers, gone", "import helpers")
    history.edit("quality.py", "    rows = table", '    raise KeyError("price")\n    rows = table')
    bad = history.run()
    assert (unknown.status, bad.status) == ("failed", "failed")
    result = found(history, step="score")
    assert (result.last_good, result.first_bad) == (good.id, bad.id)
    assert result.between == (unknown.id,)
    assert result.kinds == ("code",)
    assert result.changes[0].files == ("quality.py",)
    assert result.changes[0].functions == ("score",)


def test_code_that_cannot_be_loaded_is_a_change_of_code(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.run()
    history.edit("quality.py", "import polars", "import gone, polars")
    bad = history.run()
    assert not bad.step("score").made_of
    result = found(history)
    assert result.first_bad == bad.id
    assert result.kinds == ("code",)
    assert "+import gone, polars as pl" in result.changes[0].diff
    assert result.changes[0].functions == ("(top level)",)


def test_what_went_to_and_fro_is_said(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.run()
    worse_code(history)
    history.run()
    history.edit("helpers.py", 'nw.col("price") > LIMIT', 'nw.col("price") < LIMIT')
    last_good = history.run()
    worse_parameters(history)
    first_bad = history.run()
    result = found(history, check="share")
    assert (result.last_good, result.first_bad) == (last_good.id, first_bad.id)
    assert result.kinds == ("parameters",)
    assert not result.steady


def test_of_very_many_runs_few_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path)
    runs = recorded(history, 13, worse_code)
    monkeypatch.setattr(bisecting, "_ALL", 2)
    with history.store() as store:
        result = bisect(store, asked(check="share"), good=runs[0].id, bad=runs[-1].id)
    assert result.first_bad == runs[13].id
    assert len(result.judged) <= 7
    assert found(history, check="share").first_bad == runs[13].id


def test_bad_questions_are_refused(tmp_path: Path) -> None:
    history = History(tmp_path)
    runs = [history.run(), history.harmless()]

    def code(error: type[UserError], **question: object) -> str:
        with pytest.raises(error) as caught:
            found(history, **question)
        return caught.value.code

    assert code(UserError, check="share") == "bisect-nothing"
    assert code(UserError, check="share", step="score") == "bisect-question"
    assert code(UserError, metric="share_good") == "bisect-question"
    assert code(UserError, step="score", worse_than=0.5) == "bisect-question"
    assert code(NotFound, check="shares") == "check-not-found"
    assert code(NotFound, step="scores") == "step-not-found"
    assert code(NotFound, metric="share_god", worse_than=0.5) == "metric-not-found"
    assert code(UserError, metric="share_good", worse_than=2.0) == "bisect-nothing"
    with history.store() as store:
        for good, bad in ((runs[0].id, runs[1].id), (runs[1].id, runs[0].id)):
            with pytest.raises(UserError) as caught:
                bisect(store, asked(check="share"), good=good, bad=bad)
            assert caught.value.code == "bisect-verdict"
        with pytest.raises(NotFound) as missing:
            bisect(store, asked(check="share"), good="run-0")
        assert missing.value.code == "run-not-found"
