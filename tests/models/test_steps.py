"""The steps after the choice: what a bundle holds, what is measured on it, and when it may be released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import ModelError, Refused
from modelyard.checks.repeatable import compare
from modelyard.inference import BundleDraft, open_bundle
from modelyard.models import repeating, steps
from modelyard.models.export import LIMIT
from modelyard.models.repeating import repeat
from modelyard.records import Candidate, Card, Problem

Tables = Callable[..., pl.DataFrame]
Problems = Callable[..., Problem]

LINEAR = Candidate(
    family="linear", params={"alpha": 1.0}, metric="roc_auc", higher_is_better=True, scores=(0.9,), trials=1, cost=1.0
)


@pytest.fixture
def draft(table: Tables, problem: Problems) -> BundleDraft:
    rows = table("binary")
    return steps.fit(table=rows[:200], holdout=rows[200:], winner=LINEAR, problem=problem("binary"), name="demo")[0]


def test_a_bundle_says_what_it_was_made_from(draft: BundleDraft) -> None:
    assert set(draft.files) == {
        "model.onnx",
        "model.json",
        "labels.json",
        "profile.json",
        "environment.json",
        "recipe.json",
    }
    bundle = draft.bundle()
    assert bundle.labels == ("no", "yes")
    assert "scikit-learn" in bundle.json("environment.json")["libraries"]
    assert bundle.json("recipe.json")["params"] == {"alpha": 1.0}
    assert set(bundle.profile["features"]) == {f.name for f in bundle.signature.features}
    assert bundle.profile["rows"] == 200, "the training rows, which live requests are compared with"
    usual = bundle.profile["usual"]
    assert usual["rows"] > 200, "held-out rows are usual as well"
    assert usual["outlier"]["share"][0] == pytest.approx(1 / (usual["rows"] + 1), rel=1e-5)


def test_predictions_keep_the_columns_of_groups(draft: BundleDraft, table: Tables) -> None:
    found = steps.evaluate(model=draft.bundle(), table=table("binary", seed=5).lazy(), keep=["colour", "flag"])
    assert found.columns == ["truth", "prediction", "probability.no", "probability.yes", "colour", "flag"]
    assert found["prediction"].to_list() == ["yes" if p >= 0.5 else "no" for p in found["probability.yes"]]
    with pytest.raises(ModelError) as caught:
        steps.evaluate(model=draft.bundle(), table=table("binary"), keep=["color"])
    assert caught.value.code == "model-column-missing"
    with pytest.raises(ModelError) as caught:
        steps.evaluate(model=draft.bundle(), table=table("binary").with_columns(truth=1), keep=["truth"])
    assert caught.value.code == "model-column-reserved"


def test_the_column_that_decides_is_the_most_important(draft: BundleDraft, table: Tables, problem: Problems) -> None:
    once, again = (
        steps.importances(model=draft.bundle(), table=table("binary", seed=3), problem=problem("binary"))
        for _ in range(2)
    )
    assert once == again
    rows = once.details["rows"]
    assert rows[0]["feature"] == "signal"
    assert rows[0]["importance"] > 0.2
    assert {r["feature"]: r["importance"] for r in rows}["constant"] == 0


def test_latency_is_timed_and_never_compared(draft: BundleDraft, table: Tables) -> None:
    found = steps.latency(model=draft.bundle(), table=table("binary"), rows=3)
    assert found.volatile
    assert found.unit == "ms"
    assert found.n >= 200
    assert found.details["rows"] == 3
    assert 0 < found.details["p50"] <= found.details["p99"] == found.value


def card(draft: BundleDraft, **more: object) -> Card:
    return msgspec.structs.replace(Card(model="demo", digest=draft.version.digest, sections=()), **more)


def test_a_released_bundle_is_the_same_model_with_a_card(draft: BundleDraft, tmp_path: Path) -> None:
    released = steps.package(model=draft.bundle(), card=card(draft))
    assert released.version.released
    assert released.version.digest == draft.version.digest
    assert released.version.identity != draft.version.identity
    for name, data in released.files.items():
        (tmp_path / name).write_bytes(data)
    opened = open_bundle(tmp_path, version=released.version)
    assert opened.json("card.json")["model"] == "demo"
    assert steps.package(model=opened, card=card(draft)).files == released.files


def test_a_card_with_gaps_or_of_another_model_releases_nothing(draft: BundleDraft) -> None:
    with pytest.raises(Refused, match="ethics") as caught:
        steps.package(model=draft.bundle(), card=card(draft, missing=("ethics",)))
    assert caught.value.code == "card-incomplete"
    assert "`purpose` and `owners` at the top" in caught.value.problem.hint
    with pytest.raises(Refused) as caught:
        steps.package(model=draft.bundle(), card=card(draft, digest="0" * 64))
    assert caught.value.code == "card-mismatch"


def test_a_class_without_training_rows_is_said(table: Tables, problem: Problems) -> None:
    rows = table("binary")
    only = rows.filter(pl.col("y") == "no")
    with pytest.raises(ModelError, match="class `yes` has no training row") as caught:
        steps.fit(table=only, holdout=rows, winner=LINEAR, problem=problem("binary"), name="demo")
    assert caught.value.code == "model-class-missing"


@pytest.mark.slow
def test_fresh_processes_make_the_same_model(table: Tables, problem: Problems, draft: BundleDraft) -> None:
    rows = table("binary")
    found = repeat(
        rows[:200],
        rows[200:],
        LINEAR,
        problem("binary"),
        name="demo",
        runs=2,
        # Another number of threads is noted, and still changes nothing in the model.
        variables=[{"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}, {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "2"}],
    )
    first, second = found.details["runs"]
    assert first["weights"] == second["weights"]
    assert first["predictions"] == second["predictions"]
    assert first["max_difference"] == second["max_difference"] == 0
    assert first["threads"] != second["threads"]
    assert found.value == 1


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lightgbm", "hist_gradient_boosting", "random_forest"])
def test_every_family_repeats_to_the_bit(family: str, table: Tables, problem: Problems) -> None:
    from modelyard.models import families

    rows = table("multiclass")
    winner = msgspec.structs.replace(
        LINEAR, family=family, params=families.get(family).defaults("multiclass", 200), metric="balanced_accuracy"
    )
    found = steps.repeats(table=rows[:200], holdout=rows[200:], winner=winner, problem=problem("multiclass"), name="m")
    assert found.value == 1
    assert len({run["predictions"] for run in found.details["runs"]}) == 1


def test_what_a_repetition_notes_is_what_the_check_reads(
    table: Tables, problem: Problems, draft: BundleDraft, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table("binary")
    rows[:200].write_ipc(tmp_path / "train.arrow")
    rows[200:].write_ipc(tmp_path / "holdout.arrow")
    order = {"winner": LINEAR, "problem": problem("binary"), "name": "demo", "drop": [], "seed": 0, "limit": LIMIT}
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order))
    assert repeating.main([str(tmp_path)]) == 0
    facts = msgspec.json.decode(capsys.readouterr().out)
    assert facts["weights"] == digest_bytes(draft.files["model.onnx"])
    assert facts["model"] == draft.version.digest
    assert facts["metrics"]["roc_auc"] > 0.8
    unseeded = {**facts, "seed": 1, "weights": "other", "predictions": "other", "max_difference": 0.2}
    for other, verdict, source in ((dict(facts), "bitwise", ""), (unseeded, "unstable", "seed")):
        assert compare([facts, other])[:2] == (verdict, source)


def test_a_repetition_exports_by_the_limit_that_was_declared(
    table: Tables, problem: Problems, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, winner = table("regression"), msgspec.structs.replace(LINEAR, metric="rmse")
    settings: dict[str, Any] = {"winner": winner, "problem": problem("regression"), "name": "demo", "seed": 0}
    # No export is that near: the model is served by its own library.
    draft, _ = steps.fit(table=rows[:200], holdout=rows[200:], limit=1e-12, **settings)
    assert draft.version.format == "skops"
    rows[:200].write_ipc(tmp_path / "train.arrow")
    rows[200:].write_ipc(tmp_path / "holdout.arrow")
    (tmp_path / "order.json").write_bytes(msgspec.json.encode({**settings, "drop": [], "limit": 1e-12}))
    assert repeating.main([str(tmp_path)]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["model"] == draft.version.digest


def test_repetitions_are_compared_with_the_model_that_was_made(
    table: Tables, problem: Problems, draft: BundleDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The processes are real in the slow tests; here each makes what it is told in this one.
    monkeypatch.setattr(repeating, "_one", made_here)
    rows = table("binary")
    told: dict[str, Any] = {"table": rows[:200], "holdout": rows[200:], "problem": problem("binary"), "name": "demo"}
    same = steps.repeats(**told, winner=LINEAR, runs=1, model=draft.bundle())
    assert (same.n, same.value) == (2, 1)
    assert compare(same.details["runs"]) == ("bitwise", "", 0.0)
    other = msgspec.structs.replace(LINEAR, params={"alpha": 50.0})
    apart = steps.repeats(**told, winner=other, runs=1, model=draft.bundle())
    verdict, source, difference = compare(apart.details["runs"])
    assert (verdict, source, apart.value) == ("unstable", "params", 2)
    assert difference is not None
    assert difference > 1e-3


def made_here(place: Path, run: int, extra: Mapping[str, str]) -> dict[str, Any]:
    with redirect_stdout(StringIO()) as said:
        repeating.main([str(place)])
    return msgspec.json.decode(said.getvalue())


def test_a_repetition_that_fails_is_said(table: Tables, problem: Problems) -> None:
    rows = table("binary")
    with pytest.raises(ModelError, match="repetition 1") as caught:
        repeat(rows, rows.drop("colour"), LINEAR, problem("binary"), name="demo", runs=2)
    assert caught.value.code == "model-repeat-failed"
