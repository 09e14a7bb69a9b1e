"""Each family on each task: it learns, its export agrees with it, and again gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from modelyard._kit.errors import ModelError, NotFound
from modelyard.inference import OnnxPredictor
from modelyard.models import families
from modelyard.models.dataset import dataset
from modelyard.models.export import compare, export, onnx_bytes
from modelyard.models.families.lightgbm import LightGBM
from modelyard.models.fitting import fit
from modelyard.models.scoring import metric_of, score
from modelyard.models.steps import evaluate
from modelyard.models.steps import fit as fit_step
from modelyard.records import Candidate, Problem, Task

FAMILIES = ["linear", "lightgbm", "hist_gradient_boosting", "random_forest"]
TASKS: list[Task] = ["binary", "multiclass", "regression"]
# Trees enough to have every kind of node, and to be of use.
FEW: dict[str, dict[str, int]] = {
    "linear": {},
    "lightgbm": {"n_estimators": 40},
    "hist_gradient_boosting": {"max_iter": 40},
    "random_forest": {"n_estimators": 10},
}

Tables = Callable[..., pl.DataFrame]
Problems = Callable[..., Problem]


def winner(family: str, problem: Problem, **params: Any) -> Candidate:
    params = {**families.get(family).defaults(problem.task, 200), **params}
    return Candidate(
        family=family,
        params=params,
        metric=problem.metric,
        higher_is_better=problem.task != "regression",
        scores=(0.9, 0.9),
        trials=1,
        cost=1.0,
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_export_agrees_and_is_the_same_twice(family: str, task: Task, table: Tables, problem: Problems) -> None:
    rows, learned = table(task), problem(task)
    chosen = winner(family, learned, **FEW[family])
    made = [
        fit_step(table=rows[:200], holdout=rows[200:].lazy(), winner=chosen, problem=learned, name="m")
        for _ in range(2)
    ]
    (draft, parity), (again, _) = made
    assert draft.files == again.files
    assert draft.version == again.version
    assert draft.version.format == "onnx"
    assert parity.measure == "onnx_parity"
    assert parity.value is not None
    assert parity.value <= 1e-5
    assert parity.details["labels_equal"] == 1.0
    # What it answers is of use: far better than knowing nothing.
    predictions = evaluate(model=draft.bundle(), table=rows[200:], keep=["colour"])
    if task == "regression":
        error = (predictions["truth"] - predictions["prediction"]).pow(2).mean()
        assert error < 0.5 * predictions["truth"].var()
    else:
        assert (predictions["truth"] == predictions["prediction"]).mean() > (0.75 if task == "binary" else 0.6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_nothing_and_unseen_values_is_answered(family: str, table: Tables, problem: Problems) -> None:
    rows, learned = table("binary"), problem("binary")
    chosen = winner(family, learned, **FEW[family])
    draft, _ = fit_step(table=rows[:200], holdout=rows[200:], winner=chosen, problem=learned, name="m")
    bundle = draft.bundle()
    strange = {"colour": "ultraviolet", "signal": 1e30, "wide": -(2**70), "flag": None, "name": "", "constant": 0}
    output = bundle.predictor().predict(bundle.encode([{}, strange]))
    assert output.shape == (2, 2)
    assert np.isfinite(output).all()
    assert output.sum(axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize("family", ["lightgbm", "hist_gradient_boosting", "random_forest"])
def test_wide_integers_fall_on_the_same_side_of_every_split(family: str) -> None:
    # Neighbouring float32 values: most thresholds lie between two of them, where float32 has no number.
    random = np.random.default_rng(1)
    wide = (2.0**25 + 4 * random.integers(0, 400, 4000)).astype(np.float32)
    target = ((wide / 4).astype(np.int64) % 7 < 3).astype(np.int64)
    problem = Problem(task="binary", target="y", classes=("0", "1"), positive="1", metric="roc_auc")
    feeds = {"numeric": np.stack([wide, np.roll(wide, 1)], axis=1)}
    chosen = families.get(family)
    fitted = fit(chosen, chosen.defaults("binary", 4000), feeds, target, problem, seed=0)
    near = np.arange(2**25 - 8, 2**25 + 1700, dtype=np.float64).astype(np.float32)
    probe = {"numeric": np.stack([near, near[::-1]], axis=1)}
    parity = compare(fitted.predict(probe), OnnxPredictor(onnx_bytes(fitted)).predict(probe), problem)
    assert parity.worst < 1e-6


def test_a_number_missing_only_later_is_answered_as_the_library_answers(problem: Problems) -> None:
    # LightGBM reads a missing value as zero where it never saw one; no such column reaches it unfilled.
    random = np.random.default_rng(2)
    rows = pl.DataFrame({"a": random.normal(size=200) + 5, "y": random.choice(["no", "yes"], 200)})
    learned = problem("binary")
    data = dataset(rows, learned)
    fitted = fit(families.get("lightgbm"), winner("lightgbm", learned).params, data.feeds, data.target, learned, 0)
    probe = {"numeric": np.array([[np.nan], [0.0], [5.0]], np.float32)}
    assert compare(fitted.predict(probe), OnnxPredictor(onnx_bytes(fitted)).predict(probe), learned).worst < 1e-6


class _NoOnnx:
    """A family whose ONNX export does not work."""

    def __init__(self, name: str, *, native: bool = True) -> None:
        self._family, self._native = families.get(name), native

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def export(self, *_: Any) -> None:
        raise ValueError("it cannot be said in ONNX")

    def native(self, fitted: Any) -> Any:
        return self._family.native(fitted) if self._native else None


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_without_onnx_the_library_serves_it_itself(family: str, task: Task, table: Tables, problem: Problems) -> None:
    learned = problem(task)
    data = dataset(table(task), learned)
    broken: Any = _NoOnnx(family)
    fitted = fit(broken, winner(family, learned, **FEW[family]).params, data.feeds, data.target, learned, 0)
    exported = export(fitted, data.feeds)
    assert exported.format == ("lightgbm" if family == "lightgbm" else "skops")
    assert exported.parity.value is not None
    assert exported.parity.value < 1e-6
    assert "cannot be said in ONNX" in exported.parity.details["tried"][0]["error"]
    assert export(fitted, data.feeds).files == exported.files


def test_what_fits_neither_is_out(table: Tables, problem: Problems) -> None:
    learned = problem("binary")
    data = dataset(table("binary"), learned)
    broken: Any = _NoOnnx("linear", native=False)
    fitted = fit(broken, {"alpha": 1.0}, data.feeds, data.target, learned, 0)
    with pytest.raises(ModelError) as caught:
        export(fitted, data.feeds)
    assert caught.value.code == "model-not-exportable"


def test_a_difference_above_the_limit_is_not_served_as_onnx(
    table: Tables, problem: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.models.trees import add_trees

    # The export of a model that lost one of its trees.
    def forgets(graph: Any, matrix: str, output: str, trees: Any, outputs: int) -> str:
        return add_trees(graph, matrix, output, trees[:-1], outputs)

    learned = problem("binary")
    data = dataset(table("binary"), learned)
    params = winner("lightgbm", learned, n_estimators=5).params
    fitted = fit(LightGBM(), params, data.feeds, data.target, learned, 0)
    monkeypatch.setattr("modelyard.models.boosted.add_trees", forgets)
    exported = export(fitted, data.feeds)
    assert exported.format == "lightgbm"
    assert exported.parity.details["tried"][0]["worst"] > 1e-4


def test_bit_vectors_that_differ_are_left_out_and_the_graph_serves(
    table: Tables, problem: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.models.boosted import Boosted

    vectors = Boosted.vectors

    def shifted(self: Boosted, preparation: Any) -> Any:
        found = vectors(self, preparation)
        assert found is not None
        return msgspec.structs.replace(found, base=[1.0])

    learned = problem("binary")
    data = dataset(table("binary"), learned)
    fitted = fit(LightGBM(), winner("lightgbm", learned, n_estimators=5).params, data.feeds, data.target, learned, 0)
    assert "trees.msgpack" in export(fitted, data.feeds).files
    monkeypatch.setattr(Boosted, "vectors", shifted)
    exported = export(fitted, data.feeds)
    assert (exported.format, list(exported.files)) == ("onnx", ["model.onnx"])
    assert exported.parity.value is not None
    assert exported.parity.value < 1e-6
    assert [one["format"] for one in exported.parity.details["tried"]] == ["trees", "onnx"]


def test_cost_grows_with_the_model(table: Tables, problem: Problems) -> None:
    learned = problem("binary")
    data = dataset(table("binary"), learned)
    small, large = (
        fit(LightGBM(), winner("lightgbm", learned, n_estimators=n).params, data.feeds, data.target, learned, 0).cost
        for n in (10, 100)
    )
    assert 0 < small < large / 5


@pytest.mark.parametrize("family", FAMILIES)
def test_real_data_of_scikit_learn(family: str) -> None:
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

    for load, task in ((load_breast_cancer, "binary"), (load_wine, "multiclass"), (load_diabetes, "regression")):
        matrix, y = load(return_X_y=True)
        names = [f"c{at}" for at in range(matrix.shape[1])]
        rows = pl.DataFrame(matrix, schema=names).with_columns(y=pl.Series(y)).sample(fraction=1, shuffle=True, seed=0)
        classes = () if task == "regression" else tuple(str(c) for c in sorted(set(y.tolist())))
        metric = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}[task]
        problem = Problem(
            task=task, target="y", classes=classes, positive=classes[1] if task == "binary" else "", metric=metric
        )
        cut = rows.height * 2 // 3
        chosen = winner(family, problem)
        draft, _ = fit_step(table=rows[:cut], holdout=rows[cut:], winner=chosen, problem=problem, name="m")
        bundle = draft.bundle()
        held = dataset(rows[cut:], problem, signature=bundle.signature)
        found = score(metric_of(problem), held.target, bundle.predictor().predict(held.feeds), problem)
        assert found > {"binary": 0.97, "multiclass": 0.93, "regression": 0.25}[task]
        assert bundle.labels == tuple(int(c) for c in classes)


def test_a_family_is_found_by_its_names() -> None:
    assert families.get("logistic") is families.get("linear")
    assert families.names() == FAMILIES
    with pytest.raises(NotFound, match="random_forest"):
        families.get("random_forst")
