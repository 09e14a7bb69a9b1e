"""What somebody has deleted is made again: the ledger alone does not say that an output is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

import modelyard
from modelyard import Flow
from modelyard.deploy.aliases import move
from modelyard.inference import Bundle, BundleDraft
from modelyard.inference.bundle import MODEL
from modelyard.pipeline import preview, there
from modelyard.pipeline.probes import Context, still_champion
from modelyard.records import Feature, Gone, ModelVersion, Problem, Signature, plain, read_value

MADE: list[str] = []


def rows() -> pl.DataFrame:
    MADE.append("rows")
    return pl.DataFrame({"a": [1, 2, 3]})


def fitted(table: Any) -> BundleDraft:
    MADE.append("fitted")
    return weighed("weights")


def weighed(weights: str) -> BundleDraft:
    problem = Problem(task="regression", target="y", metric="rmse")
    signature = Signature(features=(Feature(name="a", type="number", source="Int64"),), problem=problem)
    version = ModelVersion(
        name="m", digest="", family="f", params={}, format="onnx", signature=signature, trained_on=(), environment=""
    )
    return BundleDraft.of(version, {"model.onnx": weights.encode()})


def size(model: Any) -> int:
    MADE.append("size")
    return len(model.read("model.onnx"))


def flow() -> Flow:
    made = Flow("f")
    made.step(size, model=made.step(fitted, table=made.step(rows)))
    return made


def statuses(run: modelyard.Run) -> dict[str, str]:
    return {step.name: step.status for step in run.steps}


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("tables", {"rows": "succeeded", "fitted": "cached", "size": "cached"}),
        ("blobs/folders", {"rows": "cached", "fitted": "succeeded", "size": "cached"}),
    ],
)
def test_what_is_gone_is_made_again_and_nothing_else(tmp_path: Path, lost: str, again: dict[str, str]) -> None:
    first = modelyard.run(flow(), project=tmp_path)
    assert first["size"] == len(b"weights")
    shutil.rmtree(tmp_path / ".modelyard" / lost)
    foreseen = {one.step: one for one in preview(flow().plan(), modelyard.open_project(tmp_path))}
    (remade,) = [name for name, status in again.items() if status == "succeeded"]
    assert foreseen[remade].verdict == "run"
    assert "is gone from the store" in foreseen[remade].why
    MADE.clear()
    run = modelyard.run(flow(), project=tmp_path)
    assert (statuses(run), MADE) == (again, [remade])
    assert run["fitted"] == first["fitted"]
    assert statuses(modelyard.run(flow(), project=tmp_path)) == dict.fromkeys(again, "cached")


def grown(label: str, previous: Any = None) -> pl.DataFrame:
    MADE.append("new" if previous is None else "on")
    return pl.DataFrame({"a": [label]})


def test_nothing_is_built_on_a_table_that_is_gone(tmp_path: Path) -> None:
    def labelled(label: str) -> Flow:
        made = Flow("f")
        made.step(grown, label=label)
        return made

    MADE.clear()
    modelyard.run(labelled("a"), project=tmp_path)
    modelyard.run(labelled("b"), project=tmp_path)
    shutil.rmtree(tmp_path / ".modelyard/tables")
    assert modelyard.run(labelled("c"), project=tmp_path).status == "succeeded"
    assert MADE == ["new", "on", "new"]


def named(record: dict[str, Any]) -> Any:
    """Return a model of before, as an alias does: it is named, and no run makes its bundle again."""
    return record


def answers(model: Bundle | Gone) -> Any:
    MADE.append("answers")
    return model if isinstance(model, Gone) else len(model.read("model.onnx"))


def test_a_step_that_did_without_a_bundle_looks_for_it_again(tmp_path: Path) -> None:
    model = read_value(modelyard.run(flow(), project=tmp_path)["fitted"])
    comparison = Flow("f")
    comparison.step(answers, model=comparison.step(named, record=plain(model)))
    bundles, aside = tmp_path / ".modelyard/blobs/folders", tmp_path / "aside"
    bundles.rename(aside)
    assert read_value(modelyard.run(comparison, project=tmp_path)["answers"]) == Gone(model=model)
    foreseen = {one.step: one.why for one in preview(comparison.plan(), modelyard.open_project(tmp_path))}
    assert "is gone from the store" in foreseen["named"]
    MADE.clear()
    aside.rename(bundles)
    (foreseen,) = [one for one in preview(comparison.plan(), modelyard.open_project(tmp_path)) if one.step == "answers"]
    assert (foreseen.verdict, foreseen.why) == ("run", "the bundle of model `m` was gone, and may be back")
    assert modelyard.run(comparison, project=tmp_path)["answers"] == len(b"weights")
    # What was made with it stays so.
    bundles.rename(aside)
    assert modelyard.run(comparison, project=tmp_path)["answers"] == len(b"weights")
    assert MADE == ["answers"]


def test_a_bundle_whose_folder_was_emptied_is_gone(tmp_path: Path) -> None:
    modelyard.run(flow(), project=tmp_path)
    assert there._MODEL == MODEL
    for model in (tmp_path / ".modelyard/blobs/folders").rglob(MODEL):
        model.parent.chmod(0o755)
        model.unlink()
    assert statuses(modelyard.run(flow(), project=tmp_path))["fitted"] == "succeeded"
    assert statuses(modelyard.run(flow(), project=tmp_path))["fitted"] == "cached"


def test_only_the_model_that_is_the_champion_already_has_taken_the_place(tmp_path: Path) -> None:
    made = Flow("f")
    for letter in "abc":
        made.step(weighed, weights=letter, name=letter)
    run = modelyard.run(made, project=tmp_path)
    other, candidate, third = (msgspec.structs.replace(read_value(run[letter]), released=True) for letter in "abc")
    store = modelyard.open_project(tmp_path)
    seen = Context(tmp_path, store, "evaluate.champion", {"model": plain(other), "candidate": plain(candidate)})
    # A plan from before names no candidate: then nothing is known to have been replaced.
    before = Context(tmp_path, store, "evaluate.champion", {"model": plain(other)})
    for now, replaced in ((other, False), (third, False), (candidate, True)):
        move(store, "p", "champion", now, reason="by hand", actor="user:ana")
        assert still_champion(seen, endpoint="p") == {"unkeyed": {"replaced": replaced}}
        assert still_champion(before, endpoint="p") == {"unkeyed": {"replaced": False}}
