"""The place of a value among knots, as a plain search finds it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard.inference.grid import Grid, missing

LARGEST = float(np.finfo(np.float32).max)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
close = st.integers(-3, 3).map(float)


@settings(max_examples=examples(200), deadline=None)
@given(
    columns=st.lists(st.lists(st.one_of(finite, close), max_size=40).map(sorted), min_size=1, max_size=4),
    values=st.lists(st.one_of(st.floats(width=32, allow_nan=False), close), min_size=1, max_size=30),
)
def test_it_finds_what_a_plain_search_finds(columns: list[list[float]], values: list[float]) -> None:
    knots = [np.array(of, np.float32) for of in columns]
    grid = Grid(knots)
    beside = [np.nextafter(np.array(of, np.float32), np.float32(way)) for of in columns for way in (-LARGEST, LARGEST)]
    pool = np.concatenate([np.array(values, np.float32), *knots, *beside])
    found = grid.find(np.repeat(pool[None], len(knots), axis=0)).reshape(len(knots), -1)
    for at, of in enumerate(knots):
        assert (found[at] - grid.starts[at]).tolist() == np.searchsorted(of, pool, "left").tolist()


def test_a_missing_value_has_some_place_of_its_column() -> None:
    grid = Grid([np.array([1, 2], np.float32), np.array([], np.float32)])
    found = grid.find(np.full((2, 3), np.nan, np.float32))
    assert (found < grid.starts[1]).tolist() == [[True] * 3, [False] * 3]
    assert found.max() < len(grid.flat)


def test_what_is_missing_is_told_however_large_the_rest_is() -> None:
    large = np.array([[LARGEST, -LARGEST, 0.0], [1.0, np.inf, -np.inf]], np.float32)
    assert missing(large) is None
    large[0, 2] = np.nan
    assert (missing(large) == np.isnan(large)).all()


@pytest.mark.parametrize("knots", [[-LARGEST, LARGEST], [0.0, 1e-45], [1e30, 1e30], [2.0**25, 2.0**25 + 4]])
def test_spans_that_no_float_can_divide_are_searched_too(knots: list[float]) -> None:
    of = np.array(knots, np.float32)
    values = np.array([[-LARGEST, -1.0, 0.0, 1e-45, 3e-45, 1.0, 2.0**25 + 4, 1e30, LARGEST]], np.float32)
    assert Grid([of]).find(values)[0].tolist() == np.searchsorted(of, values[0]).tolist()
