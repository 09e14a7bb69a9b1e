"""The folds: the same for every family, and no row, group or moment on both sides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from modelyard._kit.errors import ModelError
from modelyard.models.dataset import Dataset, dataset
from modelyard.models.folds import digest_of_folds, make_folds
from modelyard.records import Problem

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


@pytest.mark.parametrize("kind", [{}, {"group": "patient"}, {"order": "day"}])
def test_folds_depend_on_rows_and_seed_alone(data: Dataset, kind: dict[str, str]) -> None:
    once, again = (digest_of_folds(make_folds(data, count=3, **kind)) for _ in range(2))
    assert once == again
    if "order" not in kind:
        assert digest_of_folds(make_folds(data, count=3, seed=1, **kind)) != once


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
