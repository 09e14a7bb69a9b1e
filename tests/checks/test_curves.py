from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from sklearn import metrics as sk

from modelyard.checks.curves import MOST_POINTS
from modelyard.checks.steps import curves
from modelyard.records import plain, read_value


@pytest.fixture
def details(binary_table, binary):
    rng = np.random.default_rng(0)
    score = np.round(rng.beta(2, 3, 5000), 4)
    truth = (rng.random(5000) < score).astype(int)
    return truth, score, curves(predictions=binary_table(truth, score).lazy(), problem=binary).details


def test_points_of_the_roc_curve_are_those_of_scikit_learn(details):
    truth, score, found = details
    fpr, tpr, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    exact = {(float(f"{a:.6g}"), float(f"{b:.6g}")) for a, b in zip(fpr, tpr, strict=True)}
    shown = list(zip(found["roc"]["fpr"], found["roc"]["tpr"], strict=True))
    assert set(shown) <= exact
    assert (shown[0], shown[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert np.trapezoid(found["roc"]["tpr"], found["roc"]["fpr"]) == pytest.approx(
        sk.roc_auc_score(truth, score), abs=1e-3
    )


def test_points_of_precision_and_recall_are_those_of_scikit_learn(details):
    truth, score, found = details
    precision, recall, thresholds = sk.precision_recall_curve(truth, score)
    exact = {float(f"{t:.6g}"): (r, p) for p, r, t in zip(precision, recall, thresholds, strict=False)}
    for r, p, t in zip(found["pr"]["recall"], found["pr"]["precision"], found["pr"]["threshold"], strict=True):
        assert (r, p) == pytest.approx(exact[t], abs=1e-5)


def test_bins_of_calibration_hold_equal_rows_and_the_observed_share(details):
    truth, _, found = details
    bins = found["calibration"]
    assert sum(bins["n"]) == 5000
    assert max(bins["n"]) < 1.2 * min(bins["n"])
    assert np.dot(bins["n"], bins["observed"]) == pytest.approx(truth.sum(), rel=1e-4)
    assert all(a <= b <= c for a, b, c in zip(bins["low"], bins["observed"], bins["high"], strict=True))
    # A calibrated score lies in nearly all of its own intervals.
    held = [a <= p <= c for a, p, c in zip(bins["low"], bins["predicted"], bins["high"], strict=True)]
    assert sum(held) >= 8


def test_confusion_and_histogram_count_every_row_at_the_threshold_shown(details):
    truth, score, found = details
    assert found["confusion"]["labels"] == ["<=50K", ">50K"]
    assert found["confusion"]["threshold"] == 0.5
    assert found["confusion"]["counts"] == sk.confusion_matrix(truth, score >= 0.5).tolist()
    counts = found["histogram"]["counts"]
    assert [sum(counts["<=50K"]), sum(counts[">50K"])] == np.bincount(truth).tolist()
    assert len(found["histogram"]["edges"]) == len(counts[">50K"]) + 1


def test_curves_are_small_and_the_same_again(binary_table, binary):
    rng = np.random.default_rng(1)
    score = rng.random(60_000)
    table = binary_table(rng.integers(0, 2, 60_000), score)
    first, again = (curves(predictions=table, problem=binary) for _ in "ab")
    assert first == again
    assert len(msgspec.json.encode(first)) < 20_000
    assert all(len(first.details[name][x]) <= MOST_POINTS for name, x in (("roc", "fpr"), ("pr", "recall")))
    assert read_value(json.loads(msgspec.json.encode(plain(first)))) == first


def test_one_class_only_makes_curves_without_an_error(binary_table, binary):
    found = curves(predictions=binary_table(np.zeros(50, int), np.linspace(0, 0.4, 50)), problem=binary)
    assert found.details["confusion"]["counts"] == [[50, 0], [0, 0]]
    json.dumps(found.details, allow_nan=False)


def test_three_classes_have_a_curve_each(three_table, three):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    p = rng.dirichlet(np.ones(3), 600) * 0.6 + np.eye(3)[truth] * 0.4
    found = curves(predictions=three_table(truth, p), problem=three).details
    assert [one["name"] for one in found["roc"]] == ["a", "b", "c"]
    one = found["roc"][1]
    assert np.trapezoid(one["tpr"], one["fpr"]) == pytest.approx(sk.roc_auc_score(truth == 1, p[:, 1]), abs=2e-3)
    assert np.sum(found["confusion"]["counts"]) == 600
    json.dumps(found, allow_nan=False)


def test_many_classes_stay_small(three):
    import polars as pl

    from modelyard.records import Problem

    rng = np.random.default_rng(0)
    names = tuple(f"k{i:02}" for i in range(60))
    p = rng.dirichlet(np.ones(60), 2000)
    truth = rng.integers(0, 60, 2000)
    table = pl.DataFrame(
        {
            "truth": np.array(names)[truth],
            "prediction": np.array(names)[p.argmax(1)],
            **{f"probability.{name}": p[:, at] for at, name in enumerate(names)},
        }
    )
    found = curves(predictions=table, problem=Problem(task="multiclass", target="k", classes=names))
    assert found.details["confusion"]["left_out"] == 30
    assert len(msgspec.json.encode(found)) < 80_000


def test_numbers_have_residuals_and_bins(number_table, numbers):
    rng = np.random.default_rng(0)
    truth = rng.gamma(2, 10, 3000)
    predicted = truth + rng.normal(0, 2, 3000)
    found = curves(predictions=number_table(truth, predicted), problem=numbers).details
    assert sum(found["residuals"]["counts"]) == 3000
    bins = found["predicted"]
    assert sum(bins["n"]) == 3000
    assert np.dot(bins["n"], bins["observed"]) == pytest.approx(truth.sum(), rel=1e-4)
    assert all(a <= b <= c for a, b, c in zip(bins["low"], bins["observed"], bins["high"], strict=True))
    assert len(found["points"]["residual"]) == MOST_POINTS
    constant = curves(predictions=number_table(np.ones(50), np.ones(50)), problem=numbers)
    json.dumps(constant.details, allow_nan=False)


def test_the_cards_charts_draw_what_is_here(details, three_table, three, number_table, numbers):
    from modelyard.cards.facts import Source, to_json
    from modelyard.cards.figures import chart
    from modelyard.records import Evidence

    _, _, found = details
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    many = curves(predictions=three_table(truth, rng.dirichlet(np.ones(3), 200)), problem=three).details
    for own in (found, many):
        source = Source("x", to_json(Evidence(measure="curves", value=None, details=own)))
        for name in ("roc", "pr", "calibration", "confusion", "histogram"):
            assert chart(name, source), name
    y = rng.normal(0, 1, 200)
    own = curves(predictions=number_table(y, y), problem=numbers)
    assert chart("residuals", Source("x", to_json(own)))
