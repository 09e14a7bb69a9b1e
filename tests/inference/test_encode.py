"""Rows in, arrays out: every way of giving a row ends on the same arrays."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard._kit.errors import ModelError
from modelyard.inference import Encoder, as_text
from modelyard.inference.encode import encode
from modelyard.records import Feature, Problem, Signature

SIGNATURE = Signature(
    features=(
        Feature(name="age", type="number", source="Int64"),
        Feature(name="job", type="category", source="String"),
        Feature(name="pay", type="number", source="Float64"),
    ),
    problem=Problem(task="binary", target="y", classes=("a", "b"), positive="b"),
)


def test_rows_columns_arrays_and_series_are_the_same() -> None:
    rows = [{"age": 3, "job": "x", "pay": 0.1}, {"age": None, "job": None, "pay": float("nan")}, {"age": 2**60}]
    columns = {name: [row.get(name) for row in rows] for name in ("age", "job", "pay")}
    arrays = {
        "age": np.array([3, np.nan, 2**60]),
        "job": np.array(["x", None, None], object),
        "pay": np.array([0.1, np.nan, np.nan]),
    }
    series = dict(zip(columns, pl.DataFrame(columns).get_columns(), strict=True))
    first = encode(rows, SIGNATURE)
    assert first["numeric"].dtype == np.float32
    assert first["categorical"].tolist() == [["x"], [""], [""]]
    for given_as in (columns, arrays, series):
        found = encode(given_as, SIGNATURE)
        np.testing.assert_array_equal(found["numeric"], first["numeric"])
        assert found["categorical"].tolist() == first["categorical"].tolist()


def test_what_is_not_finite_or_too_large_is_missing() -> None:
    values = [float("inf"), -float("inf"), 1e39, -(10**400), Decimal("1e300"), None, ""]
    found = encode({"age": values, "job": [""] * 7, "pay": [True] * 7}, SIGNATURE)
    assert np.isnan(found["numeric"][:, 0]).all()
    assert found["numeric"][:, 1].tolist() == [1.0] * 7


def test_only_the_inputs_of_the_signature_are_made() -> None:
    numbers = Signature(features=SIGNATURE.features[:1], problem=SIGNATURE.problem)
    assert list(encode([{"age": 1, "other": "ignored"}], numbers)) == ["numeric"]
    assert encode([], SIGNATURE)["numeric"].shape == (0, 2)


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"age": [1], "job": ["x"]}, "model-column-missing"),
        ({"age": [1, 2], "job": ["x"], "pay": [1]}, "model-columns-uneven"),
        ({"age": ["old"], "job": ["x"], "pay": [1]}, "model-not-a-number"),
        ({"age": [date(2026, 1, 1)], "job": ["x"], "pay": [1]}, "model-not-a-number"),
    ],
)
def test_what_cannot_be_encoded_is_said(columns: dict[str, list[object]], code: str) -> None:
    with pytest.raises(ModelError) as caught:
        encode(columns, SIGNATURE)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("columns", "says", "hint"),
    [
        (["agee", "job", "pay"], "`age`, which is not given; you have `agee`", "call it `age`"),
        (["age", "job"], "`pay`, which is not given", "give it for every row"),
        (["job", "more"], "`age`, which is not given", "give it for every row; 1 other column of the model is missing"),
        (["x"], "`age`, which is not given", "give it for every row; 2 other columns of the model are missing"),
    ],
)
def test_a_missing_column_is_named_with_what_was_meant(columns: list[str], says: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        encode({name: [] for name in columns}, SIGNATURE)
    assert caught.value.problem.message == f"the model takes a column {says}"
    assert caught.value.problem.hint == hint


@given(st.floats() | st.integers(-(2**63), 2**63) | st.booleans() | st.none())
def test_one_number_is_encoded_as_in_a_column(value: float | int | bool | None) -> None:
    encoder = Encoder(SIGNATURE)
    alone = encoder([{"age": value}])["numeric"][0, 0]
    beside = encoder({"age": [1.5, value, None], "job": [""] * 3, "pay": [0] * 3})["numeric"][1, 0]
    np.testing.assert_array_equal(alone, beside)


def test_texts_of_every_type() -> None:
    values = [np.int64(4), np.float32(2), np.bool_(True), np.str_("s"), date(2026, 1, 2), 2.5, -0.0]
    assert [as_text(v) for v in values] == ["4", "2", "true", "s", "2026-01-02", "2.5", "0"]
