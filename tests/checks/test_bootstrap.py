from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.examples import examples

from modelyard.checks import rates
from modelyard.checks.bootstrap import (
    counts_replicates,
    interval,
    poisson_replicates,
    replicates_for,
    wilson,
    wilson_interval,
)
from modelyard.checks.metrics import METRICS


def test_each_replicate_has_as_many_rows_and_no_new_cells() -> None:
    counts = np.array([[[30, 0], [5, 10]], [[0, 2], [0, 9]]])
    drawn = counts_replicates(counts, seed=1, count=300)
    assert drawn.shape == (300, 2, 2, 2)
    assert (drawn.sum(axis=(1, 2, 3)) == counts.sum()).all()
    assert (drawn[:, counts == 0] == 0).all()
    assert drawn.mean(axis=0) == pytest.approx(counts, rel=0.1, abs=0.5)


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.integers(0, 2, 200), rng.random(200)
    measure = METRICS["roc_auc"].weighted(truth, score)
    first, again, other = (poisson_replicates(measure, 200, seed=s, count=200) for s in (4, 4, 5))
    assert (first == again).all()
    assert (first != other).any()


def test_poisson_weights_are_poisson() -> None:
    drawn = poisson_replicates(
        lambda w: [w.mean(), w.var(), (w == 0).mean(), (w >= 5).mean()], 50_000, seed=0, count=20
    )
    assert drawn.mean(axis=0) == pytest.approx([1, 1, np.exp(-1), stats.poisson.sf(4, 1)], rel=0.02)


def test_interval_of_a_mean_is_that_of_theory() -> None:
    rng = np.random.default_rng(7)
    truth, value = np.zeros(2000), rng.exponential(1, 2000)
    drawn = poisson_replicates(METRICS["mae"].weighted(truth, value), 2000, seed=0, count=1000)
    found = interval(drawn, method="x")
    half = 1.96 * value.std() / 2000**0.5
    assert found is not None
    assert found.low == pytest.approx(value.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(value.mean() + half, abs=0.2 * half)


@pytest.mark.thorough
def test_interval_of_roc_auc_covers_the_truth_as_often_as_it_says() -> None:
    """AUC of two normals one deviation apart is 0.7602; 95 % of the intervals must hold it."""
    held = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        truth = np.repeat([0, 1], 100)
        drawn = poisson_replicates(METRICS["roc_auc"].weighted(truth, rng.normal(truth, 1)), 200, seed=seed, count=300)
        found = interval(drawn, method="x")
        assert found is not None
        held += found.low <= 0.7602 <= found.high
    assert 105 <= held <= 120


@settings(max_examples=examples(50), deadline=None)
@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(part: int, more: int, level: float) -> None:
    whole = part + more - 1 or 1
    part = min(part, whole)
    expected = stats.binomtest(part, whole).proportion_ci(level, method="wilson")
    low, high = wilson(part, whole, level=level)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_seen_is_nothing_known() -> None:
    found = wilson_interval(0, 0)
    assert (found.low, found.high) == (0.0, 1.0)


def test_values_that_are_mostly_undefined_have_no_interval() -> None:
    assert interval(np.array([np.nan] * 60 + [0.5] * 40), method="x") is None


def test_fewer_replicates_of_many_rows() -> None:
    assert replicates_for(1000) == 1000
    assert replicates_for(200_000) == 500
    assert replicates_for(10_000_000) == 200


@pytest.mark.parametrize("replicates", [0, pytest.param(100, marks=pytest.mark.thorough)])
def test_group_rates_are_those_of_fairlearn_and_so_are_their_intervals(replicates: int) -> None:
    from fairlearn import metrics as fair

    rng = np.random.default_rng(11)
    n = 3000
    sex, race = rng.choice(["F", "M"], n), rng.choice(["a", "b"], n, p=[0.7, 0.3])
    truth = (rng.random(n) < 0.4).astype(int)
    label = np.where(rng.random(n) < 0.25, 1 - truth, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = fair.MetricFrame(
            metrics={"fnr": fair.false_negative_rate, "fpr": fair.false_positive_rate},
            y_true=truth,
            y_pred=label,
            sensitive_features={"sex": sex, "race": race},
            **({"n_boot": replicates, "ci_quantiles": [0.025, 0.975], "random_state": 0} if replicates else {}),
        )
        low, high = frame.by_group_ci if replicates else (None, None)
    cells = (sex == "M") * 2 + (race == "b")
    counts = np.bincount((cells * 2 + truth) * 2 + label, minlength=16).reshape(4, 2, 2)
    drawn = counts_replicates(counts, seed=0, count=2000)
    for name, share in (("fnr", rates.false_negative), ("fpr", rates.false_positive)):
        values = rates.ratio(share)(counts)
        ends = np.quantile(rates.ratio(share)(drawn), [0.025, 0.975], axis=0)
        for at, group in enumerate([("F", "a"), ("F", "b"), ("M", "a"), ("M", "b")]):
            assert values[at] == pytest.approx(frame.by_group.loc[group, name], abs=1e-12)
            if not replicates:
                continue
            # A percentile of 100 replicates is itself off by about a tenth of the width.
            width = ends[1, at] - ends[0, at]
            assert ends[0, at] == pytest.approx(low.loc[group, name], abs=0.25 * width)
            assert ends[1, at] == pytest.approx(high.loc[group, name], abs=0.25 * width)
