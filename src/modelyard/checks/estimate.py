"""One metric on one set of predictions: its value, its interval, and whether there are rows enough to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import UserError, near
from modelyard._kit.text import plural
from modelyard.checks import rates
from modelyard.checks.bootstrap import (
    LEVEL,
    counts_replicates,
    interval,
    poisson_replicates,
    replicates_for,
    wilson_interval,
)
from modelyard.checks.metrics import METRICS, Metric
from modelyard.checks.predictions import Predicted
from modelyard.checks.verdict import finite
from modelyard.records import Evidence, Interval, Problem

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FEWEST_OF_A_CLASS", "FEWEST_ROWS", "Estimate", "estimate", "evidence", "metric_for", "shortage"]

# Below this an interval says little more than that nothing is known.
FEWEST_ROWS = 30
FEWEST_OF_A_CLASS = 5
POISSON = "Poisson bootstrap"
MULTINOMIAL = "multinomial bootstrap of the confusion counts"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured metric.

    Attributes:
        metric: What was measured.
        value: Its value; none where it is undefined.
        interval: Its interval; none where it is undefined or there are too few rows.
        n: Rows it was measured on; for a share, the rows it is a share of.
        lacking: Why there are too few rows to say anything, as a sentence; empty if there are enough.
    """

    metric: Metric
    value: float | None
    interval: Interval | None
    n: int
    lacking: str = ""


def metric_for(name: str, problem: Problem) -> Metric:
    """Return the metric of this name.

    Raises:
        UserError: There is none (`metric-unknown`), or it is not for such a problem (`metric-task`).
    """
    if name not in METRICS:
        close = near(name, METRICS)
        hint = f"did you mean `{close[0]}`?" if close else f"there is: {', '.join(METRICS)}"
        raise UserError("metric-unknown", f"no metric `{name}`", hint=hint)
    metric = METRICS[name]
    if problem.task not in metric.tasks:
        fit = [m.name for m in METRICS.values() if problem.task in m.tasks]
        raise UserError(
            "metric-task",
            f"metric `{name}` is for {' and '.join(metric.tasks)} problems, and `{problem.target}` is a "
            f"{problem.task} problem",
            hint=f"take one of: {', '.join(fit)}",
        )
    return metric


def estimate(
    metric: Metric, predicted: Predicted, *, level: float = LEVEL, seed: int = 0, fewest: int = FEWEST_ROWS
) -> Estimate:
    """Measure a metric with its interval.

    A share gets a Wilson interval, other metrics of confusion counts a multinomial bootstrap, and the rest a bootstrap
    with Poisson weights.

    Args:
        metric: What to measure.
        predicted: Predictions.
        level: Confidence of the interval.
        seed: Seed of the bootstrap.
        fewest: Rows below which there is nothing to be said.
    """
    value, n = _value(metric, predicted)
    lacking = shortage(metric, predicted, n, fewest)
    if lacking or value is None:
        return Estimate(metric, value, None, n, lacking or f"{metric.name} is undefined on these rows")
    return Estimate(metric, value, _interval(metric, predicted, level, seed), n)


def _value(metric: Metric, predicted: Predicted) -> tuple[float | None, int]:
    if not len(predicted):
        return None, 0
    if metric.share is not None:
        part, whole = metric.share(_confusion(predicted))
        return (float(part / whole) if whole else None), int(whole)
    value = metric(predicted.truth, predicted.guess(metric), len(predicted.classes))
    return finite(value), len(predicted)


def _interval(metric: Metric, predicted: Predicted, level: float, seed: int) -> Interval | None:
    if metric.share is not None:
        part, whole = metric.share(_confusion(predicted))
        return wilson_interval(float(part), float(whole), level=level)
    if metric.counts is not None:
        drawn = counts_replicates(_confusion(predicted), seed=seed)
        return interval(metric.counts(drawn), level=level, method=MULTINOMIAL)
    n, classes = len(predicted), len(predicted.classes)
    count = replicates_for(n, cost=classes if classes > 2 else 1)
    measure = metric.weighted(predicted.truth, predicted.guess(metric), classes)
    return interval(poisson_replicates(measure, n, seed=seed, count=count), level=level, method=POISSON)


def _confusion(predicted: Predicted) -> Array:
    return rates.confusion(predicted.truth, predicted.labels, len(predicted.classes))


def shortage(metric: Metric, predicted: Predicted, n: int, fewest: int = FEWEST_ROWS) -> str:
    """Say in a sentence why there are too few rows for a metric; empty if there are enough.

    Args:
        metric: What is measured.
        predicted: Predictions.
        n: Rows the metric rests on.
        fewest: Rows it must rest on.
    """
    if n < fewest:
        rows = "1 row tells" if n == 1 else f"{n:,} rows tell"
        return f"{rows} too little about {metric.name}; it needs {fewest:,}, {fewest - n:,} more"
    if metric.needs != "scores" or metric.name not in ("roc_auc", "average_precision"):
        return ""
    import numpy as np

    seen = np.bincount(predicted.truth, minlength=len(predicted.classes))
    rare = int(seen.argmin())
    if seen[rare] < FEWEST_OF_A_CLASS:
        return (
            f"{plural(int(seen[rare]), 'row')} of class `{predicted.classes[rare]}` tell too little about "
            f"{metric.name}; it needs {FEWEST_OF_A_CLASS} of each class"
        )
    return ""


def evidence(measured: Estimate, *, seed: int, details: dict[str, Any] | None = None) -> Evidence:
    """Return an estimate as evidence."""
    drawn = measured.interval is not None and "bootstrap" in measured.interval.method
    return Evidence(
        measure=measured.metric.name,
        value=measured.value,
        interval=measured.interval,
        n=measured.n,
        seed=seed if drawn else None,
        method=measured.metric.about,
        details=details or {},
    )
