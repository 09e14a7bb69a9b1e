"""The preparation: numpy and ONNX make the same matrix to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modelyard._kit.errors import ModelError
from modelyard.inference import OnnxPredictor
from modelyard.models import families
from modelyard.models.dataset import dataset
from modelyard.models.graph import Graph, add_preparation
from modelyard.models.prepare import Preparation, Style, learn
from modelyard.models.trees import below
from modelyard.records import Problem

if TYPE_CHECKING:
    import polars as pl

STYLES = {name: families.get(name).style for name in families.names()}


def run(preparation: Preparation, feeds: dict[str, np.ndarray]) -> np.ndarray:
    graph = Graph()
    return OnnxPredictor(graph.to_bytes(add_preparation(graph, preparation), preparation.width)).predict(feeds)


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_numpy_and_onnx_agree_to_the_bit(
    style: Style, table: Callable[..., pl.DataFrame], problem: Callable[..., Problem]
) -> None:
    train, other = (dataset(table("binary", seed=seed), problem("binary")).feeds for seed in (0, 1))
    other["categorical"][::3] = "\x00 unseen ✓"
    preparation = learn(train, style)
    for feeds in (train, other):
        matrix = preparation.transform(feeds)
        assert matrix.dtype == np.float32
        assert matrix.shape[1] == preparation.width
        np.testing.assert_array_equal(run(preparation, feeds), matrix)


@settings(max_examples=25, deadline=None)
@given(
    train=arrays(np.float32, (12, 3), elements=st.floats(width=32, allow_infinity=False)),
    other=arrays(np.float32, (7, 3), elements=st.floats(width=32, allow_infinity=False)),
    native=st.booleans(),
)
def test_any_numbers_stay_finite_and_agree(train: np.ndarray, other: np.ndarray, native: bool) -> None:
    style = Style(scale=not native, missing="native" if native else "fill", categories="ordinal", most=5)
    preparation = learn({"numeric": train}, style)
    matrix = preparation.transform({"numeric": other})
    assert native or np.isfinite(matrix).all()
    np.testing.assert_array_equal(run(preparation, {"numeric": other}), matrix)


def test_gaps_are_filled_with_the_median_and_flagged() -> None:
    numeric = np.array([[1, np.nan], [3, np.nan], [np.nan, np.nan], [100, np.nan]], np.float32)
    preparation = learn({"numeric": numeric}, Style(scale=False, missing="fill", categories="ordinal", most=5))
    # The column without any value is filled as well, but a flag that is always up would say nothing.
    assert preparation.transform({"numeric": numeric}).tolist() == [[1, 0, 0], [3, 0, 0], [3, 0, 1], [100, 0, 0]]


def test_native_gaps_stay_only_where_both_kinds_of_rows_were_seen() -> None:
    numeric = np.array([[1, 2], [np.nan, 4]], np.float32)
    preparation = learn({"numeric": numeric}, Style(scale=False, missing="native", categories="ordinal", most=5))
    unknown = preparation.transform({"numeric": np.full((1, 2), np.nan, np.float32)})
    assert np.isnan(unknown[0, 0])
    assert unknown[0, 1] == 3


def test_rare_and_unseen_categories_are_one() -> None:
    column = np.array([["b"]] * 5 + [["a"]] * 3 + [[""]] * 2 + [["rare"]], object)
    preparation = learn({"categorical": column}, Style(scale=False, missing="fill", categories="ordinal", most=5))
    assert preparation.known == (("b", "a", ""),)
    asked = np.array([["b"], ["a"], [""], ["rare"], ["never"]], object)
    assert preparation.transform({"categorical": asked}).ravel().tolist() == [0, 1, 2, 3, 3]


def test_a_table_of_names_alone_is_refused() -> None:
    names = np.array([[f"n{at}"] for at in range(50)], object)
    with pytest.raises(ModelError) as caught:
        learn({"categorical": names}, STYLES["linear"])
    assert caught.value.code == "model-no-features"


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_moving_a_threshold_down_changes_no_decision(threshold: float, value: float) -> None:
    moved = below(np.array([threshold]))
    assert moved.dtype == np.float32
    assert (np.float32(value) <= moved[0]) == (value <= threshold)
