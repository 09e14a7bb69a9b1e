"""The folds: the same for every family, and no row, group or moment on both sides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from modelyard._kit.errors import ModelError
from modelyard.models.dataset import Dataset, dataset
from modelyard.models.folds import Fold, make_folds
from modelyard.models.steps import train
from modelyard.records import Problem, Task

Tables = Callable[..., pl.DataFrame]
Problems = Callable[..., Problem]


@pytest.fixture
def data(table: Tables, problem: Problems) -> Dataset:
    random = np.random.default_rng(0)
    day = date(2026, 1, 1)
    rows = table("multiclass").with_columns(
        patient=pl.Series([f"p{p}" for p in random.integers(0, 40, 300)]),
        day=pl.Series([day + timedelta(int(d)) for d in random.integers(0, 60, 300)]),
    )
    return dataset(rows, problem("multiclass"), drop=["patient", "day"])


def rows_of(folds: list[Fold]) -> list[list[int]]:
    return [rows.tolist() for fold in folds for rows in (fold.train, fold.valid)]


@pytest.mark.parametrize("kind", [{}, {"group": "patient"}, {"order": "day"}, {"keys": [["patient"]]}])
def test_folds_depend_on_rows_and_seed_alone(data: Dataset, kind: dict[str, Any]) -> None:
    once, again = (rows_of(make_folds(data, count=3, **kind)) for _ in range(2))
    assert once == again
    if "order" not in kind:
        assert rows_of(make_folds(data, count=3, seed=1, **kind)) != once


def test_every_row_is_scored_once_and_classes_are_spread(data: Dataset) -> None:
    folds = make_folds(data, count=5)
    assert sorted(np.concatenate([f.valid for f in folds])) == list(range(len(data)))
    shares = np.array([np.bincount(data.target[f.valid], minlength=3) for f in folds])
    assert (shares.max(axis=0) - shares.min(axis=0)).max() <= 1
    assert all(not set(f.train) & set(f.valid) for f in folds)


def test_a_group_stays_on_one_side(data: Dataset) -> None:
    folds = make_folds(data, count=4, group="patient")
    patients = data.frame["patient"].to_numpy()
    for fold in folds:
        assert not set(patients[fold.train]) & set(patients[fold.valid])
    sizes = [len(f.valid) for f in folds]
    assert max(sizes) - min(sizes) <= 15


@pytest.mark.parametrize("kind", [{}, {"group": "ward"}, {"order": "day"}])
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_key_stays_on_one_side_whatever_else_is_asked(
    table: Tables, problem: Problems, kind: dict[str, str], task: Task
) -> None:
    random = np.random.default_rng(1)
    patient = random.integers(0, 120, 300)
    rows = table(task).with_columns(
        patient=pl.Series(patient),
        ward=pl.Series(patient % 30),
        day=pl.Series(random.integers(0, 60, 300)),
        # A few visits that two patients share.
        visit=pl.Series([at // 2 if at < 20 else at for at in range(300)]),
    )
    keys = [["patient"], ["visit"], ["of another table"]]
    data = dataset(rows, problem(task), drop=["patient", "visit", "ward", "day"])
    folds = make_folds(data, count=3, keys=keys, **kind)
    for fold in folds:
        for column in ("patient", "visit"):
            values = rows[column].to_numpy()
            assert not set(values[fold.train]) & set(values[fold.valid])
    if not kind:
        assert sorted(np.concatenate([f.valid for f in folds])) == list(range(300))
        sizes = [len(f.valid) for f in folds]
        assert max(sizes) - min(sizes) <= 6
        if task == "multiclass":
            shares = np.array([np.bincount(data.target[f.valid], minlength=3) for f in folds])
            assert (shares.max(axis=0) - shares.min(axis=0)).max() <= 6


def test_keys_that_name_single_rows_change_nothing(data: Dataset) -> None:
    assert rows_of(make_folds(data, count=3, keys=[["name"]])) == rows_of(make_folds(data, count=3))


def test_training_learns_nothing_from_rows_of_a_key_that_it_is_scored_on(table: Tables, problem: Problems) -> None:
    # Each customer's rows share a trace and an answer that has nothing to do with any other customer's.
    random = np.random.default_rng(0)
    customer = np.repeat(np.arange(60), 5)
    answer, trace = random.random(60) < 0.5, random.normal(size=60)
    rows = pl.DataFrame({"customer": customer, "trace": trace[customer], "y": np.where(answer, "yes", "no")[customer]})
    arguments: dict[str, Any] = {"table": rows, "problem": problem("binary"), "family": "random_forest", "trials": 1}
    assert train(**arguments, folds=3, drop=["customer"]).mean > 0.95
    assert train(**arguments, folds=3, keys=[["customer"]]).mean < 0.7


def test_the_future_is_never_learned_from(data: Dataset) -> None:
    days = data.frame["day"].to_numpy()
    folds = make_folds(data, count=3, order="day")
    assert len(folds) == 3
    for fold in folds:
        assert days[fold.train].max() < days[fold.valid].min()


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("model-too-few-rows", {"count": 200}),
        ("model-too-few-groups", {"count": 3, "group": "same"}),
        ("model-too-few-times", {"count": 3, "order": "constant"}),
        ("model-too-few-groups", {"count": 3, "keys": [["same"]]}),
        ("model-split-column", {"count": 3, "group": "nothing"}),
        ("model-split-column", {"count": 3, "group": "colour"}),
    ],
)
def test_what_cannot_be_divided_is_said(data: Dataset, code: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ModelError) as caught:
        make_folds(data, **arguments)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_a_class_of_one_row_is_said(table: Tables, problem: Problems) -> None:
    rows = table("binary").with_columns(y=pl.Series(["yes"] + ["no"] * 299))
    with pytest.raises(ModelError, match="class `yes` has 1 row") as caught:
        make_folds(dataset(rows, problem("binary")), count=3)
    assert caught.value.code == "model-too-few-of-class"


def test_a_class_of_too_few_keys_is_said(table: Tables, problem: Problems) -> None:
    rows = table("binary").with_columns(y=pl.Series(["yes"] * 10 + ["no"] * 290), id=pl.Series(range(300)) // 5)
    with pytest.raises(ModelError, match="class `yes` has rows of 2 keys") as caught:
        make_folds(dataset(rows, problem("binary"), drop=["id"]), count=3, keys=[["id"]])
    assert caught.value.code == "model-too-few-of-class"
