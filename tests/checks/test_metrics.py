from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from tests.examples import examples

from modelyard.checks import section
from modelyard.checks.kinds import KINDS
from modelyard.checks.metrics import METRICS

LABELS: dict[str, Callable[..., float]] = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "precision": lambda t, p, **k: sk.precision_score(t, p, zero_division=0.0, **k),
    "recall": lambda t, p, **k: sk.recall_score(t, p, zero_division=0.0, **k),
    "f1": lambda t, p, **k: sk.f1_score(t, p, zero_division=0.0, **k),
}
VALUES: dict[str, Callable[..., float]] = {
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
    "r2": sk.r2_score,
    "mape": sk.mean_absolute_percentage_error,
    "median_absolute_error": sk.median_absolute_error,
}
SCORES: dict[str, Callable[..., float]] = {
    "roc_auc": sk.roc_auc_score,
    "average_precision": sk.average_precision_score,
    "log_loss": sk.log_loss,
    "brier": sk.brier_score_loss,
}

two_classes = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])), min_size=2, max_size=60
).filter(lambda rows: len({truth for truth, _ in rows}) == 2)


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=examples(60), deadline=None)
@given(rows=two_classes)
def test_binary_scores_equal_scikit_learn_with_ties(name: str, rows: list[tuple[int, float]]) -> None:
    truth, score = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    assert METRICS[name](truth, score) == pytest.approx(SCORES[name](truth, score), abs=1e-12)


@pytest.mark.parametrize("name", LABELS)
@settings(max_examples=examples(60), deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
def test_binary_labels_equal_scikit_learn(name: str, rows: list[tuple[int, int]]) -> None:
    truth, label = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = LABELS[name](truth, label)
    assert METRICS[name](truth, label) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", LABELS)
@settings(max_examples=examples(60), deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_multiclass_labels_equal_scikit_learn_macro(name: str, rows: list[tuple[int, int]]) -> None:
    truth, label = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    macro = {"average": "macro"} if name in ("precision", "recall", "f1") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = LABELS[name](truth, label, **macro)
    assert METRICS[name](truth, label, 5) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_multiclass_scores_equal_scikit_learn(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 500)
    p = rng.dirichlet(np.ones(4), 500)
    p[:50] = np.eye(4)[truth[:50]]  # certain answers, which a logarithm must survive
    p = p.astype(dtype)
    assert METRICS["roc_auc"](truth, p) == pytest.approx(
        sk.roc_auc_score(truth, p.astype(float) / p.sum(1, keepdims=True, dtype=float), multi_class="ovr"), abs=1e-6
    )
    assert METRICS["log_loss"](truth, p) == pytest.approx(sk.log_loss(truth, p), rel=1e-6)
    assert METRICS["brier"](truth, p) == pytest.approx(sk.brier_score_loss(truth, p), rel=1e-6)


@pytest.mark.parametrize("name", VALUES)
@settings(max_examples=examples(60), deadline=None)
@given(rows=st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=2, max_size=40))
def test_regression_equals_scikit_learn(name: str, rows: list[tuple[float, float]]) -> None:
    truth, value = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if name == "r2" and np.ptp(truth) < 1e-3:
        return  # nothing to explain
    assert METRICS[name](truth, value) == pytest.approx(VALUES[name](truth, value), rel=1e-9, abs=1e-9)


def test_error_rates_equal_brute_force() -> None:
    rng = np.random.default_rng(5)
    truth, label = rng.integers(0, 2, 300), rng.integers(0, 2, 300)
    expected = {
        "false_positive_rate": label[truth == 0].mean(),
        "false_negative_rate": 1 - label[truth == 1].mean(),
        "false_discovery_rate": 1 - truth[label == 1].mean(),
        "false_omission_rate": truth[label == 0].mean(),
        "selection_rate": label.mean(),
    }
    for name, value in expected.items():
        assert METRICS[name](truth, label) == pytest.approx(value, abs=1e-12), name


def test_a_rate_of_nothing_is_not_a_number() -> None:
    assert math.isnan(METRICS["false_negative_rate"](np.zeros(5), np.zeros(5)))
    assert math.isnan(METRICS["roc_auc"](np.zeros(5), np.arange(5.0)))


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if "regression" not in m.tasks])
def test_weights_count_rows(name: str) -> None:
    """A row of weight 2 is the same as the row twice, and one of weight 0 is not there."""
    rng = np.random.default_rng(1)
    metric = METRICS[name]
    truth, score = rng.integers(0, 2, 80), np.round(rng.random(80), 1)
    guess = (score >= 0.5).astype(int) if metric.needs == "labels" else score
    weights = rng.integers(0, 4, 80).astype(np.uint8)
    again = np.repeat(np.arange(80), weights)
    assert metric.weighted(truth, guess)(weights) == pytest.approx(metric(truth[again], guess[again]), abs=1e-12)


@pytest.mark.parametrize("name", VALUES)
def test_weights_count_rows_of_numbers(name: str) -> None:
    rng = np.random.default_rng(2)
    truth, value = rng.normal(5, 1, 81), rng.normal(5, 1, 81)
    weights = rng.integers(0, 4, 81).astype(np.uint8)
    again = np.repeat(np.arange(81), weights)
    assert METRICS[name].weighted(truth, value)(weights) == pytest.approx(METRICS[name](truth[again], value[again]))


def test_every_kind_of_the_file_has_a_step_that_takes_what_it_needs() -> None:
    import importlib
    import inspect

    entry = {field.name: field.type for field in msgspec.structs.fields(section.CheckEntry)}
    assert set(KINDS) == {*entry, "metric"}
    for kind in KINDS.values():
        module, _, name = kind.verb.partition(":")
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        assert {*kind.needs, "check", "seed"} <= set(parameters), kind.name
        assert kind.about
        if kind.name != "metric":
            assert kind.params is not None
            assert kind.params.__name__ in str(entry[kind.name])


def loaded_by(modules: str) -> set[str]:
    """Return which heavy libraries a fresh interpreter loads with some modules."""
    code = f"import sys, {modules}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {"numpy", "scipy", "polars", "sklearn"} & set(done.stdout.split())


def test_the_planner_loads_nothing_heavy() -> None:
    assert loaded_by("modelyard.checks.kinds") == set()


def test_the_steps_load_heavy_libraries_only_when_they_measure() -> None:
    assert loaded_by("modelyard.checks.steps, modelyard.checks.drift, modelyard.monitoring.watch") == set()
