"""Predictions to judge: binary, three classes, numbers; and checks as the planner hands them to steps."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelyard.checks.predictions import PREDICTION, PROBABILITY, TRUTH
from modelyard.records import Check, Problem, plain

Claim = Callable[..., dict[str, Any]]
BINARY = Problem(task="binary", target="income", classes=("<=50K", ">50K"), positive=">50K", metric="roc_auc")
THREE = Problem(task="multiclass", target="kind", classes=("a", "b", "c"), metric="balanced_accuracy")
NUMBERS = Problem(task="regression", target="price", metric="rmse")


@pytest.fixture
def binary() -> Problem:
    return BINARY


@pytest.fixture
def three() -> Problem:
    return THREE


@pytest.fixture
def numbers() -> Problem:
    return NUMBERS


@pytest.fixture
def claim() -> Claim:
    """Make a check in the plain form in which it is a parameter of a step."""

    def made(kind: str, /, blocking: bool = True, **params: Any) -> dict[str, Any]:
        name = params.get("metric", kind) if kind == "metric" else kind
        return plain(Check(name=name, type=kind, params=params, blocking=blocking))

    return made


@pytest.fixture
def binary_table() -> Callable[..., pl.DataFrame]:
    """Make a table of predictions out of truths (0 or 1) and scores."""

    def made(truth: Any, score: Any, **kept: Any) -> pl.DataFrame:
        truth, score = np.asarray(truth), np.asarray(score, float)
        return pl.DataFrame(
            {
                TRUTH: np.where(truth == 1, ">50K", "<=50K"),
                PREDICTION: np.where(score >= 0.5, ">50K", "<=50K"),
                f"{PROBABILITY}<=50K": 1 - score,
                f"{PROBABILITY}>50K": score,
                **kept,
            }
        )

    return made


@pytest.fixture
def scored() -> Callable[[float, int], tuple[np.ndarray, np.ndarray]]:
    """Make truths and scores whose ROC AUC is as asked for, without chance."""

    def made(auc: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        normal = NormalDist()
        apart = normal.inv_cdf(auc) * 2**0.5
        half = n // 2
        ranks = [normal.inv_cdf((i + 0.5) / half) for i in range(half)]
        score = np.array([r + apart for r in ranks] + ranks)
        return np.repeat([1, 0], half), 1 / (1 + np.exp(-(score - apart / 2)))

    return made


@pytest.fixture
def three_table() -> Callable[..., pl.DataFrame]:
    def made(truth: Any, probabilities: Any, **kept: Any) -> pl.DataFrame:
        p = np.asarray(probabilities)
        names = np.array(THREE.classes)
        columns = {f"{PROBABILITY}{c}": p[:, at] for at, c in enumerate(THREE.classes)}
        return pl.DataFrame({TRUTH: names[truth], PREDICTION: names[p.argmax(axis=1)], **columns, **kept})

    return made


@pytest.fixture
def number_table() -> Callable[..., pl.DataFrame]:
    def made(truth: Any, predicted: Any, **kept: Any) -> pl.DataFrame:
        return pl.DataFrame({TRUTH: np.asarray(truth, float), PREDICTION: np.asarray(predicted, float), **kept})

    return made
