"""Peeking after every row: false alarms stay below alpha, a real difference is found, the interval never misses."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.checks.sequential import Difference, Sample, difference, share_held

ROWS, TIMES, ALPHA, FEWEST = 4000, 400, 0.05, 100


def looks(outcomes: np.ndarray, second: np.ndarray) -> tuple[Difference, np.ndarray]:
    """Return what is said after each row of many experiments, and where there are enough rows of both."""

    def sample(its: np.ndarray) -> Sample:
        n = np.maximum(its.cumsum(1), 2)
        total, squares = (outcomes * its).cumsum(1), (outcomes**2 * its).cumsum(1)
        return Sample(n, total / n, np.maximum(squares - total**2 / n, 0.0))

    enough = (second.cumsum(1) >= FEWEST) & ((~second).cumsum(1) >= FEWEST)
    return difference(sample(~second), sample(second), alpha=ALPHA), enough


def drawn(kind: str, apart: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(7)
    second = numbers.random((TIMES, ROWS)) < share
    if kind == "normal":
        return numbers.normal(np.where(second, apart, 0.0), 1.0), second
    if kind == "skewed":
        return numbers.exponential(1.0, (TIMES, ROWS)) + apart * second, second
    rate = float(kind)
    return (numbers.random((TIMES, ROWS)) < rate + apart * second).astype(float), second


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize(
    "kind", ["0.5", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("0.95", "0.01", "normal", "skewed"))]
)
def test_who_peeks_after_each_row_is_seldom_wrong(kind: str, share: float) -> None:
    found, enough = looks(*drawn(kind, 0.0, share))
    alarms = ((found.p <= ALPHA) & enough).any(axis=1)
    assert alarms.mean() <= ALPHA


@pytest.mark.parametrize(("kind", "apart", "share"), [("0.5", 0.1, 0.5), ("0.8", 0.1, 0.1), ("normal", 0.3, 0.1)])
def test_difference_is_found_and_the_interval_covers_it_all_along(kind: str, apart: float, share: float) -> None:
    found, enough = looks(*drawn(kind, apart, share))
    assert ((found.p <= ALPHA) & (found.value > 0) & enough).any(axis=1).mean() >= 0.95
    missed = ((found.low > apart) | (found.high < apart)) & enough
    assert missed.any(axis=1).mean() <= ALPHA


def test_p_and_interval_say_the_same() -> None:
    found, enough = looks(*drawn("0.5", 0.05, 0.5))
    outside = (found.low > 0) | (found.high < 0)
    assert ((found.p < ALPHA) == outside)[enough].all()


def test_one_look_at_a_fixed_test_would_not_do() -> None:
    """A z-test at 5 % that is looked at after each row alarms far more often: the simulation can tell."""
    found, enough = looks(*drawn("0.5", 0.0, 0.5))
    half = 1.96 * 0.5 * np.sqrt(4 / np.arange(1, ROWS + 1))
    assert ((np.abs(found.value) > half) & enough).any(axis=1).mean() > 3 * ALPHA


def test_samples_add_up() -> None:
    values = np.random.default_rng(1).normal(1e6, 1.0, 300).tolist()
    parts = Sample.of(values[:10]) + Sample.of([]) + Sample.of(values[10:])
    whole = Sample.of(values)
    assert (parts.n, parts.mean) == (whole.n, pytest.approx(whole.mean))
    assert parts.squares == pytest.approx(float(np.var(values) * 300), rel=1e-6)
    assert Sample() + Sample() == Sample()


def test_outcomes_that_are_all_equal_are_no_certainty() -> None:
    same = Sample.of([1.0] * 200)
    found = difference(same, same, alpha=ALPHA)
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.low < -0.05 < 0.05 < found.high


def test_share_that_was_held_and_one_that_was_not() -> None:
    numbers = np.random.default_rng(3)
    part = (numbers.random((TIMES, ROWS)) < 0.3).cumsum(axis=1)
    whole = np.arange(1, ROWS + 1)
    assert (share_held(part, whole, 0.3) <= 0.01).any(axis=1).mean() <= 0.01
    assert share_held(part[:, -1], ROWS, 0.35).max() < 0.01
