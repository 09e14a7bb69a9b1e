from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from modelyard._kit.errors import DataError, UserError
from modelyard.checks.steps import metric


def test_a_model_at_079_give_or_take_003_fails_a_limit_of_080_with_its_reason(binary_table, scored, binary, claim):
    table = binary_table(*scored(0.79, 860))
    check = claim("metric", metric="roc_auc", at_least=0.80, with_confidence=0.95)
    result = metric(predictions=table.lazy(), problem=binary, check=check, seed=0)
    assert result.status == "failed"
    assert not result.ok
    assert result.reason == "roc_auc 0.79 (95 % from 0.759) is below 0.80"
    assert result.evidence.interval.high == pytest.approx(0.82, abs=0.005)
    assert result.evidence.seed == 0
    assert result.evidence.n == 860


def test_a_value_above_the_limit_fails_if_its_lower_bound_is_below(binary_table, scored, binary, claim):
    table = binary_table(*scored(0.81, 860))
    sure = claim("metric", metric="roc_auc", at_least=0.80, with_confidence=0.95)
    result = metric(predictions=table, problem=binary, check=sure)
    assert result.status == "failed"
    assert "is at least 0.80, but with 95 % confidence it may be as low as 0.7" in result.reason
    unsure = claim("metric", metric="roc_auc", at_least=0.80)
    assert metric(predictions=table, problem=binary, check=unsure).status == "passed"


def test_the_lower_bound_decides_and_so_does_the_confidence(binary_table, scored, binary, claim):
    table = binary_table(*scored(0.81, 860))
    low = metric(
        predictions=table, problem=binary, check=claim("metric", metric="roc_auc", at_least=0.8, with_confidence=0.95)
    ).evidence.interval.low
    for limit, status in ((low - 1e-6, "passed"), (low + 1e-6, "failed")):
        check = claim("metric", metric="roc_auc", at_least=limit, with_confidence=0.95)
        assert metric(predictions=table, problem=binary, check=check).status == status
    lax = claim("metric", metric="roc_auc", at_least=low + 1e-6, with_confidence=0.5)
    assert metric(predictions=table, problem=binary, check=lax).status == "passed"


def test_the_upper_bound_decides_where_less_is_better(binary_table, scored, binary, claim):
    table = binary_table(*scored(0.9, 600))
    value = metric(predictions=table, problem=binary, check=claim("metric", metric="log_loss", at_most=9.0))
    high = value.evidence.interval.high
    good = claim("metric", metric="log_loss", at_most=high + 1e-6, with_confidence=0.95)
    bad = claim("metric", metric="log_loss", at_most=high - 1e-6, with_confidence=0.95)
    assert metric(predictions=table, problem=binary, check=good).status == "passed"
    result = metric(predictions=table, problem=binary, check=bad)
    assert result.status == "failed"
    assert "may be as high as" in result.reason


def test_a_share_has_a_wilson_interval_even_when_all_are_right(binary_table, binary, claim):
    truth = np.arange(40) % 2
    result = metric(
        predictions=binary_table(truth, truth * 0.8 + 0.1),
        problem=binary,
        check=claim("metric", metric="accuracy", at_least=0.95, with_confidence=0.95),
    )
    assert result.evidence.value == 1.0
    assert result.evidence.interval.low == pytest.approx(0.9124, abs=1e-4)
    assert result.status == "failed"
    assert result.evidence.seed is None


def test_a_share_counts_the_rows_it_is_a_share_of(binary_table, binary, claim):
    truth = np.array([1] * 20 + [0] * 480)
    check = claim("metric", metric="false_negative_rate", at_most=0.5)
    result = metric(predictions=binary_table(truth, truth * 0.9), problem=binary, check=check)
    assert result.status == "insufficient"
    assert result.reason == "20 rows tell too little about false_negative_rate; it needs 30, 10 more"


def test_too_few_rows_are_insufficient_and_block(binary_table, binary, claim):
    truth = np.arange(12) % 2
    table = binary_table(truth, truth * 0.8 + 0.1)
    result = metric(predictions=table, problem=binary, check=claim("metric", metric="roc_auc", at_least=0.5))
    assert (result.status, result.ok) == ("insufficient", False)
    assert "12 rows tell too little about roc_auc; it needs 30, 18 more" in result.reason
    rare = binary_table([1] * 3 + [0] * 97, np.linspace(1, 0, 100))
    result = metric(predictions=rare, problem=binary, check=claim("metric", metric="roc_auc", at_least=0.5))
    assert result.status == "insufficient"
    assert "class `>50K`" in result.reason


def test_three_classes_and_numbers(three_table, three, number_table, numbers, claim):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 400)
    p = rng.dirichlet(np.ones(3), 400) * 0.4 + np.eye(3)[truth] * 0.6
    for name in ("roc_auc", "accuracy", "balanced_accuracy", "f1"):
        check = claim("metric", metric=name, at_least=0.7, with_confidence=0.95)
        assert metric(predictions=three_table(truth, p), problem=three, check=check).status == "passed", name
    table = number_table(truth, truth + rng.normal(0, 0.1, 400))
    for name, limit, status in (("rmse", 0.2, "passed"), ("mae", 0.01, "failed"), ("r2", 0.5, "failed")):
        check = claim("metric", metric=name, at_most=limit, with_confidence=0.95)
        assert metric(predictions=table, problem=numbers, check=check).status == status


def test_a_difference_by_rounding_does_not_fail(binary_table, binary, claim):
    truth = np.array([1, 0] * 50)
    score = np.where(np.arange(100) < 30, 1 - truth, truth) * 0.8 + 0.1
    check = claim("metric", metric="accuracy", at_least=0.1 + 0.2 + 0.4)  # 0.7000000000000001
    assert metric(predictions=binary_table(truth, score), problem=binary, check=check).status == "passed"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"metric": "roc_auc"}, "check-limit"),
        ({"metric": "roc_auc", "at_least": 0.5, "at_most": 0.6}, "check-limit"),
        ({"metric": "rmse", "at_most": 1.0}, "metric-task"),
        ({"metric": "roc_auk", "at_least": 0.5}, "metric-unknown"),
    ],
)
def test_what_cannot_be_measured_is_said(params, code, binary_table, scored, binary, claim):
    with pytest.raises(UserError) as caught:
        metric(predictions=binary_table(*scored(0.8, 100)), problem=binary, check=claim("metric", **params))
    assert caught.value.code == code
    assert caught.value.problem.hint


def test_broken_predictions_are_refused(binary_table, scored, binary, claim):
    table = binary_table(*scored(0.8, 100))
    check = claim("metric", metric="roc_auc", at_least=0.5)
    broken = {
        "predictions-column": table.drop("prediction"),
        "predictions-value": table.with_columns(pl.lit(float("nan")).alias("probability.>50K")),
        "predictions-class": table.with_columns(pl.lit("maybe").alias("truth")),
    }
    for code, predictions in broken.items():
        with pytest.raises(DataError) as caught:
            metric(predictions=predictions, problem=binary, check=check)
        assert caught.value.code == code


@pytest.mark.parametrize("values", [[True, False], [1, 0], [1.0, 0.0]])
def test_truths_of_any_type_are_read_as_the_classes_they_are(values, claim):
    from modelyard.records import Problem

    names = {True: "true", False: "false"} if values[0] is True else {1: "1", 0: "0"}
    problem = Problem(task="binary", target="y", classes=tuple(sorted(names.values())), positive=names[values[0]])
    truth = values * 30
    table = pl.DataFrame(
        {
            "truth": truth,
            "prediction": truth,
            f"probability.{names[values[0]]}": [0.9, 0.2] * 30,
            f"probability.{names[values[1]]}": [0.1, 0.8] * 30,
        }
    )
    for name in ("accuracy", "roc_auc", "recall"):
        result = metric(predictions=table, problem=problem, check=claim("metric", metric=name, at_least=1.0))
        assert result.status == "passed"
