from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats

from modelyard.checks.drift import Limits, _below, drift, psi_by_chance, shifts
from modelyard.checks.predictions import PREDICTION, PROBABILITY, TRUTH
from modelyard.checks.profile import KNOTS, floats, profile
from modelyard.records import Feature, Problem, Signature

BINARY = Problem(task="binary", target="y", classes=("no", "yes"), positive="yes", metric="roc_auc")


def signature(**types: str) -> Signature:
    features = tuple(Feature(name=name, type=kind, source="Float64") for name, kind in types.items())
    return Signature(features=features, problem=BINARY)


PEOPLE = signature(
    age="number",
    hours="number",
    gain="number",
    tenth="number",
    height="number",
    one="number",
    sex="category",
    job="category",
    rare="category",
)
JOBS = np.array([1 / (i + 1) ** 1.5 for i in range(40)])


def people(rng: np.random.Generator, n: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    height = rng.normal(170 + 10 * shift, 10, n)
    height[rng.random(n) < 0.1] = np.nan
    return {
        "age": rng.integers(17, 91, n).astype(float),
        "hours": np.where(rng.random(n) < 0.5, 40, rng.integers(1, 99, n)).astype(float),
        "gain": np.where(rng.random(n) < 0.92, 0, rng.lognormal(8, 1, n)),
        "tenth": rng.integers(0, 8, n) / 10,
        "height": height,
        "one": np.ones(n),
        "sex": rng.choice(["Female", "Male"], n, p=[0.33, 0.67]),
        "job": rng.choice([f"j{i}" for i in range(40)], n, p=JOBS / JOBS.sum()),
        "rare": rng.choice(["a", "b", ""], n, p=[0.985, 0.005, 0.01]),
    }


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(99)
    columns, score = people(rng, 20_000), rng.beta(1, 3, 20_000)
    made = profile(columns, PEOPLE, np.column_stack([1 - score, score]))
    return columns, score, json.loads(json.dumps(made, allow_nan=False))


def only(results, name):
    return next(result for result in results if result.check.name == name)


def test_a_profile_is_exact_at_its_knots_and_small(reference):
    columns, _, made = reference
    assert len(json.dumps(made)) < 20_000
    assert made["rows"] == 20_000
    for name in ("age", "gain", "height"):
        entry = made["features"][name]
        values = columns[name].astype(np.float32)
        known = np.sort(values[~np.isnan(values)])
        assert len(entry["knots"]) <= KNOTS
        assert entry["n"] + entry["missing"] == 20_000
        knots = np.array(entry["knots"], np.float32)
        assert entry["below"] == np.searchsorted(known, knots, side="right").tolist()
        assert (knots[0], knots[-1]) == (known[0], known[-1])
    assert made["features"]["sex"]["counts"]["Male"] == (columns["sex"] == "Male").sum()
    assert made["features"]["rare"]["missing"] == (columns["rare"] == "").sum()


def test_a_profile_is_the_same_from_a_frame_and_a_table_of_predictions(reference):
    columns, score, made = reference
    label = np.where(score >= 0.5, "yes", "no")
    table = pl.DataFrame({TRUTH: label, PREDICTION: label, f"{PROBABILITY}no": 1 - score, f"{PROBABILITY}yes": score})
    frame = pl.DataFrame(columns).with_columns(pl.col("height").fill_nan(None), pl.col("rare").replace({"": None}))
    assert profile(frame, PEOPLE, table) == made


def test_distances_of_an_even_column_equal_scipy(reference):
    """With at most 128 values the profile is the whole distribution, and so is the distance."""
    columns, _, made = reference
    rng = np.random.default_rng(1)
    window = {"age": rng.integers(25, 91, 400).astype(float)}
    found = only(drift(made, window), "ks.age")
    expected = stats.ks_2samp(columns["age"], window["age"], method="asymp")
    assert found.evidence.value == pytest.approx(expected.statistic, abs=1e-12)
    assert found.evidence.details["p"] == pytest.approx(expected.pvalue, rel=0.2)


def test_distances_of_a_continuous_column_are_close_to_scipy_and_never_above(reference):
    columns, _, made = reference
    height = columns["height"][~np.isnan(columns["height"])]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        window = rng.normal(172, 10, 300)
        found = only(drift(made, {"height": window}), "ks.height").evidence
        expected = stats.ks_2samp(height, window, method="asymp")
        assert expected.statistic - 0.02 <= found.value <= expected.statistic + 1e-9


@pytest.mark.parametrize("kind", ["normal", "whole", "wide", "zeros"])
def test_many_rows_are_counted_as_few_are(kind):
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.normal(0, 1, 60_000),
        "whole": rng.integers(-40, 40, 60_000),
        "wide": rng.normal(0, 1, 60_000) * 10.0 ** rng.integers(-30, 30, 60_000),
        "zeros": np.where(rng.random(60_000) < 0.9, -0.0, rng.lognormal(8, 1, 60_000)),
    }[kind]
    made = profile({"x": values[:3000]}, signature(x="number"))["features"]["x"]
    knots, seen = np.array(made["knots"], np.float32), floats(values)
    plain = [(seen <= knot).sum() for knot in knots]
    assert _below(knots, seen).tolist() == plain
    assert _below(knots, seen[:2000]).tolist() == [(seen[:2000] <= knot).sum() for knot in knots]


def test_psi_equals_its_formula(reference):
    columns, _, made = reference
    rng = np.random.default_rng(2)
    window = rng.choice(["Female", "Male"], 1000, p=[0.6, 0.4])
    old, new = ((values == "Female").mean() for values in (columns["sex"], window))
    expected = (new - old) * np.log(new / old) + (old - new) * np.log((1 - new) / (1 - old))
    found = only(drift(made, {"sex": window}), "psi.sex")
    assert found.evidence.value == pytest.approx(expected, rel=0.01)
    assert found.status == "failed"
    assert found.evidence.details["window"] == pytest.approx([1 - new, new], abs=1e-5)


def test_psi_by_chance_is_what_unchanged_windows_show(reference):
    _, _, made = reference
    values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = shifts(made, {"age": rng.integers(17, 91, 200).astype(float)})
        values.append(next(s.value for s in found if s.measure == "psi"))
    assert np.mean(values) == pytest.approx(psi_by_chance(10, 200, 20_000), rel=0.2)


@pytest.mark.parametrize("n", [50, *(pytest.param(n, marks=pytest.mark.thorough) for n in (100, 500))])
def test_unchanged_windows_seldom_raise_an_alarm(reference, n):
    _, _, made = reference
    alarms = naive = 0
    for seed in range(200):
        rng = np.random.default_rng([seed, n])
        results = drift(made, people(rng, n), scores=rng.beta(1, 3, n), limits=Limits(ks=0.1))
        alarms += any(result.status == "failed" for result in results)
        naive += any(r.evidence.measure == "psi" and (r.evidence.value or 0) > 0.2 for r in results)
    # One in a hundred is promised: 2 of 200, and 7 has a chance below one in a hundred.
    assert alarms <= 6
    if n == 50:
        assert naive > 100  # what a bare limit would have done


def test_shifted_windows_of_100_rows_raise_an_alarm_that_names_the_column(reference):
    _, _, made = reference
    for seed in range(50):
        rng = np.random.default_rng([seed, 7])
        results = drift(made, people(rng, 100, shift=1.0), scores=rng.beta(1, 3, 100))
        alarms = {result.check.name for result in results if result.status == "failed"}
        assert "psi.height" in alarms
        assert results[0].status == "failed"


def test_a_shift_of_the_predictions_alone_is_found(reference):
    _, _, made = reference
    rng = np.random.default_rng(3)
    results = drift(made, people(rng, 200), scores=rng.beta(3, 2, 200))
    assert [r.check.name for r in results if r.status == "failed"] == ["psi.prediction"]
    assert results[0].evidence.details["feature"] == "prediction"


def test_a_distance_past_its_limit_by_chance_passes_and_says_so(reference):
    _, _, made = reference
    for seed in range(100):
        rng = np.random.default_rng([seed, 50])
        found = only(drift(made, {"age": rng.integers(17, 91, 50).astype(float)}), "psi.age")
        if found.evidence.value > 0.2:
            assert found.status == "passed"
            assert "above 0.20, but with so few rows that may be chance (p " in found.reason
            return
    pytest.fail("no unchanged window of 50 rows had a psi above 0.2")


def test_missing_values_and_unseen_categories(reference):
    _, _, made = reference
    rng = np.random.default_rng(5)
    window = people(rng, 200)
    window["age"][:60] = np.nan
    window["sex"][:20] = "Other"
    results = drift(made, window)
    missing, unseen = only(results, "missing"), only(results, "unseen")
    assert missing.status == unseen.status == "failed"
    assert missing.evidence.value == pytest.approx(0.3)
    assert missing.evidence.details["feature"] == "age"
    assert unseen.evidence.value == pytest.approx(0.1)
    assert unseen.evidence.details["examples"] == ["Other"]
    assert "sex was never seen in training" in unseen.reason
    clean = drift(made, people(rng, 200))
    assert only(clean, "missing").status == only(clean, "unseen").status == "passed"


def test_a_rare_category_that_training_happened_to_miss_is_no_alarm():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(2000)]
    made = profile({"word": rng.choice(words, 3000)}, signature(word="category"))
    window = {"word": rng.choice(words, 100)}
    found = shifts(made, window)
    assert not [r for r in drift(made, window) if r.status == "failed"]
    # More than are listed: what is not listed may have been seen.
    assert [s.measure for s in found] == ["missing", "psi"]


def test_a_constant_that_changes_is_found(reference):
    _, _, made = reference
    assert only(drift(made, {"one": np.zeros(100)}), "psi.one").status == "failed"
    assert only(drift(made, {"one": np.ones(100)}), "psi.one").status == "passed"


def test_numbers_are_compared_as_the_model_sees_them(reference):
    """0.7 as JSON is not the float32 of 0.7; a bin edge between them would be a shift of a whole value."""
    _, _, made = reference
    rng = np.random.default_rng(0)
    values = (rng.integers(0, 8, 400) / 10).tolist()
    assert only(drift(made, {"tenth": values}), "psi.tenth").evidence.value < 0.05


def test_ks_is_limited_only_where_asked(reference):
    _, _, made = reference
    window = {"age": np.full(100, 80.0)}
    free, bound = (only(drift(made, window, limits=Limits(ks=ks)), "ks.age") for ks in (None, 0.1))
    assert (free.status, free.limit) == ("passed", None)
    assert "reported and not limited" in free.reason
    assert bound.status == "failed"


def test_columns_that_are_not_given_and_empty_ones_are_left_out(reference):
    _, _, made = reference
    assert drift(made, {}) == []
    names = [r.check.name for r in drift(made, {"age": [None] * 100})]
    assert names == ["missing"]


def test_results_block_nothing_and_have_no_word_json_lacks(reference):
    import msgspec

    _, _, made = reference
    results = drift(made, people(np.random.default_rng(0), 100, shift=2.0))
    assert all(result.ok for result in results)
    json.loads(msgspec.json.encode(results), parse_constant=pytest.fail)
