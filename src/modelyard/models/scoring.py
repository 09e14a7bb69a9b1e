"""Score what a model answered by the metric that selects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ModelError, NotFound
from modelyard.checks.metrics import METRICS, Metric
from modelyard.inference import picked, scores
from modelyard.records import Problem

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["metric_of", "score"]


def metric_of(problem: Problem) -> Metric:
    """Return the metric that a problem's models are selected by.

    Raises:
        NotFound: There is none of this name.
        ModelError: It does not fit the problem, or says nothing of good and bad (`model-metric`).
    """
    if problem.metric not in METRICS:
        raise NotFound.of("metric", problem.metric, METRICS)
    metric = METRICS[problem.metric]
    if problem.task not in metric.tasks or metric.higher_is_better is None:
        fitting = [m.name for m in METRICS.values() if problem.task in m.tasks and m.higher_is_better is not None]
        raise ModelError(
            "model-metric",
            f"no {problem.task} model can be selected by `{problem.metric}`",
            hint=f"take one of: {', '.join(fitting)}",
        )
    return metric


def score(metric: Metric, truth: Array, output: Array, problem: Problem) -> float:
    """Measure a predictor's output.

    Args:
        metric: What to measure.
        truth: Target as numbers; for a classification the position of the class.
        output: Probabilities, rows x classes, or rows x 1.
        problem: What was learned.
    """
    if problem.task == "regression":
        return metric(truth, output[:, 0])
    classes = len(problem.classes)
    guess = picked(output, problem)
    if problem.task == "multiclass":
        return metric(truth, output if metric.needs == "scores" else guess, classes)
    # The metrics count the positive class as 1, wherever it stands among the classes.
    positive = problem.classes.index(problem.positive)
    if metric.needs == "scores":
        return metric(truth == positive, scores(output, problem))
    return metric(truth == positive, guess == positive, classes)
