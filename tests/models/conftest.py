"""Small tables with everything that hurts: gaps, rare and unseen categories, constants, wide integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from modelyard.records import Problem, Task

METRIC = {"binary": "roc_auc", "multiclass": "balanced_accuracy", "regression": "rmse"}


def make_problem(task: Task, metric: str = "") -> Problem:
    classes = {"binary": ("no", "yes"), "multiclass": ("high", "low", "mid"), "regression": ()}[task]
    positive = "yes" if task == "binary" else ""
    return Problem(task=task, target="y", classes=classes, positive=positive, metric=metric or METRIC[task])


def make_table(task: Task, rows: int = 300, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    signal = random.normal(size=rows)
    colour = random.choice(["red", "green", "blue"], rows)
    strength = signal + (colour == "red") + 0.3 * random.normal(size=rows)
    gaps = random.random(rows)
    y: list[object]
    if task == "regression":
        y = list(1000 * strength)
    elif task == "binary":
        y = ["yes" if s > 0.3 else "no" for s in strength]
    else:
        y = ["low" if s < -0.3 else "mid" if s < 0.9 else "high" for s in strength]
    return pl.DataFrame(
        {
            "signal": [None if g < 0.1 else v for v, g in zip(signal.tolist(), gaps, strict=True)],
            "wide": random.integers(2**24, 2**31, rows),
            "flag": random.random(rows) < 0.5,
            "constant": np.full(rows, 7.5),
            "empty": pl.Series([None] * rows, dtype=pl.Float64),
            "colour": [None if g > 0.9 else c for c, g in zip(colour.tolist(), gaps, strict=True)],
            "name": [f"n{at}" for at in range(rows)],
            "same": ["x"] * rows,
            "y": y,
        }
    )


@pytest.fixture
def table() -> Callable[..., pl.DataFrame]:
    return make_table


@pytest.fixture
def problem() -> Callable[..., Problem]:
    return make_problem
