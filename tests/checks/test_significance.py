from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.examples import examples

from modelyard.checks.significance import chi_square_tail, holm, kolmogorov_tail, shares_differ


@settings(max_examples=examples(80), deadline=None)
@given(st.floats(0.001, 200), st.integers(1, 40))
def test_chi_square_tail_equals_scipy(value: float, freedom: int) -> None:
    assert chi_square_tail(value, freedom) == pytest.approx(stats.chi2.sf(value, freedom), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("n", "m"), [(100, 1000), (100, 40_000), (1000, 1000)])
@pytest.mark.parametrize("distance", [0.03, 0.08, 0.15, 0.25])
def test_kolmogorov_tail_is_that_of_scipy(n: int, m: int, distance: float) -> None:
    expected = stats.kstwo.sf(distance, round(n * m / (n + m)))
    assert kolmogorov_tail(distance, n, m) == pytest.approx(expected, rel=0.12, abs=0.01)


@settings(max_examples=examples(80), deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_few_rows_are_compared_as_fisher_does(whole: int, other: int, data: st.DataObject) -> None:
    part, other_part = data.draw(st.integers(0, whole)), data.draw(st.integers(0, other))
    found = shares_differ(part, whole, other_part, other)
    table = [[part, whole - part], [other_part, other - other_part]]
    pooled = (part + other_part) / (whole + other)
    if min(pooled, 1 - pooled) * min(whole, other) < 10:
        assert found == pytest.approx(stats.fisher_exact(table)[1], abs=1e-9)
    else:
        assert found == pytest.approx(stats.chi2_contingency(table, correction=False)[1], abs=1e-9)


def test_many_rows_with_few_of_a_kind() -> None:
    assert shares_differ(2, 1_000_000, 3, 1_000_000) == pytest.approx(1.0)
    assert shares_differ(0, 100, 0, 100) == 1.0
    assert shares_differ(0, 0, 5, 10) == 1.0


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_monotone_and_never_below_the_raw_value(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    if p:
        assert min(adjusted) == pytest.approx(min(1.0, len(p) * min(p)))
