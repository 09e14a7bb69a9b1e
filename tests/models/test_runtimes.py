"""What can be run of a model, and what measuring it says: real processes, real libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest

from modelyard.inference import Bundle
from modelyard.inference.runtimes import INT8, ONNX
from modelyard.models.families import get
from modelyard.models.forms import forms_of, small_weights
from modelyard.models.making import feeds_of, make
from modelyard.models.runtimes import measure
from modelyard.models.timing import time_runtime
from modelyard.records import Candidate, Task

Made = Callable[..., tuple[Bundle, pl.DataFrame]]


@pytest.fixture
def made(table: Callable[..., pl.DataFrame], problem: Callable[..., Any]) -> Made:
    def of(family: str, task: Task = "binary", **params: Any) -> tuple[Bundle, pl.DataFrame]:
        rows = table(task)
        settings = {**get(family).defaults(task, rows.height), **params}
        winner = Candidate(
            family=family, params=settings, metric="", higher_is_better=True, scores=(), trials=1, cost=0.0
        )
        return make(rows, rows, winner, problem(task), name="m", drop=["name"]).draft.bundle(), rows

    return of


def test_a_forest_is_its_library_and_a_graph_and_has_nothing_to_quantise(made: Made) -> None:
    bundle, rows = made("random_forest", n_estimators=5)
    forms = forms_of(bundle, rows)
    assert sorted(forms.files) == ["native", "onnxruntime"]
    assert "multiplied by a matrix" in forms.left_out["int8"]
    assert "sum trees" in forms.left_out["kernels"]
    assert any("is the model to the last byte" in note for note in forms.notes)
    assert "model.skops" in forms.files["native"]


def test_a_model_that_cannot_be_trained_again_says_so(made: Made) -> None:
    bundle, _ = made("lightgbm")
    forms = forms_of(bundle, None, why="its rows are gone")
    assert sorted(forms.files) == ["kernels", "onnxruntime"]
    assert forms.left_out["native"] == "it cannot be trained again to compare with: its rows are gone"


def test_other_rows_do_not_make_the_same_model(made: Made) -> None:
    bundle, rows = made("linear")
    forms = forms_of(bundle, rows.head(200))
    assert any("is NOT the model" in note for note in forms.notes)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_matrices_become_small_and_their_loss_is_measured(made: Made, task: Task) -> None:
    bundle, rows = made("linear", task)
    small = small_weights(bundle.read(ONNX))
    assert any(node.op_type == "MatMulInteger" for node in onnx.load_from_string(small).graph.node)
    forms = forms_of(bundle, None, why="not asked for")
    feeds = feeds_of(rows, bundle.signature)
    cells, evidence = measure(bundle, forms, feeds, batches=(1, 32), seconds=0.01)
    by = {(cell.runtime, cell.threads, cell.batch): cell for cell in cells}
    exact, rough = by["onnxruntime", 1, 1], by["int8", 1, 1]
    assert exact.loss < 1e-6 < rough.loss
    assert rough.worst >= rough.loss - (1 - rough.equal)
    assert min(cell.n for cell in cells) >= 100
    assert exact.size == len(bundle.read(ONNX))
    assert exact.memory > 1_000_000, "loading ONNX Runtime takes memory"
    assert evidence.details["machine"]["cores"] >= 1
    assert evidence.volatile


def test_answers_are_those_of_all_rows_in_their_order_whatever_the_batch(made: Made) -> None:
    bundle, rows = made("lightgbm")
    feeds = feeds_of(rows, bundle.signature)
    expected = bundle.predictor().predict(feeds)
    files = {"trees.msgpack": bundle.read("trees.msgpack")}
    batches = (1, 7, 300, 1000)
    timed, answers = time_runtime("kernels", files, feeds, task="binary", threads=1, batches=batches, seconds=0.01)
    assert [one.batch for one in timed] == list(batches)
    for batch in batches:
        assert np.array_equal(answers[batch], expected), batch


def test_what_does_not_run_is_left_out_and_the_others_are_measured(made: Made) -> None:
    bundle, rows = made("linear")
    forms = forms_of(bundle, None, why="not asked for")
    forms.files["int8"] = {INT8: b"no graph"}
    cells, evidence = measure(bundle, forms, feeds_of(rows, bundle.signature), batches=(1,), seconds=0.01)
    assert {cell.runtime for cell in cells} == {"onnxruntime"}
    assert "int8" in evidence.details["left_out"]
