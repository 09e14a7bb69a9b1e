"""A table as arrays: every mistake in it is named with its column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
import pytest

from modelyard._kit.errors import ModelError
from modelyard.models.dataset import dataset, encode_target
from modelyard.records import Problem

Tables = Callable[..., pl.DataFrame]
Problems = Callable[..., Problem]


def test_the_signature_tells_numbers_from_categories(table: Tables, problem: Problems) -> None:
    data = dataset(table("binary").lazy(), problem("binary"), drop=["name", "not there"])
    assert [f.name for f in data.signature.numbers] == ["signal", "wide", "flag", "constant", "empty"]
    assert [f.name for f in data.signature.categories] == ["colour", "same"]
    wide, colour = data.signature.numbers[1], data.signature.categories[0]
    assert wide.source == "Int64"
    assert wide.low is not None
    assert wide.low >= 2**24
    assert colour.categories == ("blue", "green", "red")
    assert data.feeds["numeric"].dtype == np.float32
    assert np.isnan(data.feeds["numeric"][:, 4]).all()
    assert set(data.feeds["categorical"][:, 0]) == {"", "blue", "green", "red"}
    assert data.target.tolist() == [["no", "yes"].index(y) for y in data.frame["y"]]


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (pl.Series("y", ["no", "maybe"]), "model-class-unknown"),
        (pl.Series("y", ["no", None]), "model-target-missing"),
        (pl.Series("z", ["no", "yes"]), "model-no-target"),
    ],
)
def test_a_bad_target_is_said(column: pl.Series, code: str, problem: Problems) -> None:
    with pytest.raises(ModelError) as caught:
        dataset(pl.DataFrame({"a": [1, 2], column.name: column}), problem("binary"))
    assert caught.value.code == code


def test_a_regression_needs_finite_numbers(problem: Problems) -> None:
    for column, code in (
        (pl.Series([1.0, None]), "model-target-missing"),
        (pl.Series([1.0, float("inf")]), "model-target-missing"),
        (pl.Series(["a", "b"]), "model-target-type"),
    ):
        with pytest.raises(ModelError) as caught:
            dataset(pl.DataFrame({"a": [1, 2], "y": column}), problem("regression"))
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (pl.DataFrame({"when": [date(2026, 1, 1)], "y": ["no"]}), "model-column-type"),
        (pl.DataFrame({"y": ["no"]}), "model-no-features"),
        (pl.DataFrame({"a": [], "y": []}, schema={"a": pl.Float64, "y": pl.String}), "model-no-rows"),
    ],
)
def test_a_table_that_teaches_nothing_is_said(rows: pl.DataFrame, code: str, problem: Problems) -> None:
    with pytest.raises(ModelError) as caught:
        dataset(rows, problem("binary"))
    assert caught.value.code == code


def test_later_rows_need_the_columns_of_the_first(table: Tables, problem: Problems) -> None:
    first = dataset(table("binary"), problem("binary"))
    with pytest.raises(ModelError, match="did you mean `colours`") as caught:
        dataset(table("binary").rename({"colour": "colours"}), problem("binary"), signature=first.signature)
    assert caught.value.code == "model-column-missing"
    # A number that came as text is read; what is no number is said.
    asked = table("binary").with_columns(wide=pl.lit("12"))
    assert dataset(asked, problem("binary"), signature=first.signature).feeds["numeric"][0, 1] == 12
    with pytest.raises(ModelError, match="was given `twelve`") as caught:
        dataset(asked.with_columns(wide=pl.lit("twelve")), problem("binary"), signature=first.signature)
    assert caught.value.code == "model-not-a-number"


@pytest.mark.parametrize(
    ("values", "classes"),
    [([True, False], ("false", "true")), ([0, 1], ("0", "1")), ([1.0, 2.0], ("1", "2"))],
)
def test_a_target_of_any_type_is_a_class(values: list[object], classes: tuple[str, ...]) -> None:
    problem = Problem(task="binary", target="y", classes=classes, positive=classes[1], metric="roc_auc")
    assert encode_target(pl.DataFrame({"y": values}), problem).tolist() == [
        classes.index(str(v).lower().removesuffix(".0")) for v in values
    ]
