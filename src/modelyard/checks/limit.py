"""A metric against a limit, with the bound of its interval where confidence is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.checks.bootstrap import LEVEL
from modelyard.checks.estimate import Estimate, estimate, evidence, metric_for
from modelyard.checks.predictions import read_predictions
from modelyard.checks.verdict import check_of, figures, holds, level_text, limit_of, side
from modelyard.records import Check, CheckResult, Limit, Problem, Status

if TYPE_CHECKING:
    import polars as pl

__all__ = ["judge", "metric"]


def metric(
    *, predictions: pl.LazyFrame | pl.DataFrame, problem: Problem, check: Check | Mapping[str, Any], seed: int = 0
) -> CheckResult:
    """Hold a metric of the predictions against its limit.

    With `with_confidence` it is the bound of the two-sided interval of that confidence that must hold the limit: the
    lower one for `at_least`, the upper one for `at_most`. Without it the value itself must, and the 95 % interval is
    reported.

    Args:
        predictions: Table of predictions.
        problem: What was learned.
        check: The check; its parameters are `metric`, `at_least` or `at_most`, and `with_confidence`.
        seed: Seed of the bootstrap.

    Raises:
        UserError: The metric does not fit the problem, or there is no limit.
        DataError: The predictions cannot be used.
    """
    claim = check_of(check)
    limit = limit_of(claim)
    asked = claim.params.get("with_confidence")
    predicted = read_predictions(predictions, problem)
    measure = metric_for(claim.params.get("metric") or claim.name, problem)
    measured = estimate(measure, predicted, level=float(asked or LEVEL), seed=seed)
    status, reason = judge(measured, limit, surely=asked is not None)
    return CheckResult(check=claim, status=status, reason=reason, limit=limit, evidence=evidence(measured, seed=seed))


def judge(measured: Estimate, limit: Limit, *, surely: bool) -> tuple[Status, str]:
    """Return status and reason of an estimate against a limit.

    Args:
        measured: What was measured.
        limit: What it is compared with.
        surely: Whether the bound of the interval must hold the limit, rather than the value.
    """
    name, value, interval = measured.metric.name, measured.value, measured.interval
    if measured.lacking or value is None or (surely and interval is None):
        return "insufficient", measured.lacking or f"there is no interval for {name} on these rows"
    at_least = limit.op == "at_least"
    numbers = [value, limit.value, *([side(interval, limit)] if interval else [])]
    shown, bar, *bound = figures(*numbers)
    aside = f" ({level_text(interval.level)} {'from' if at_least else 'up to'} {bound[0]})" if interval else ""
    if not holds(value, limit):
        return "failed", f"{name} {shown}{aside} is {'below' if at_least else 'above'} {bar}"
    good = f"is at {'least' if at_least else 'most'} {bar}"
    if surely and interval and not holds(side(interval, limit), limit):
        worse = "low" if at_least else "high"
        sure = f"with {level_text(interval.level)} confidence"
        return "failed", f"{name} {shown} {good}, but {sure} it may be as {worse} as {bound[0]}"
    return "passed", f"{name} {shown}{aside} {good}"
