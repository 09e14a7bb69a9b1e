"""Errors of probabilities and of numbers, as functions of the weights of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Measure = Callable[[Array], float]

__all__ = ["brier", "log_loss", "mae", "mape", "median_absolute_error", "r2", "rmse"]


def _mean(losses: Array) -> Measure:
    import numpy as np

    def measure(weights: Array) -> float:
        whole = weights.sum(dtype=np.float64)
        return float(np.dot(weights, losses) / whole) if whole else float("nan")

    return measure


def log_loss(truth: Array, scores: Array) -> Measure:
    """Return the mean negative logarithm of the probability of the true class, clipped as scikit-learn does."""
    import numpy as np

    scores = np.asarray(scores)
    eps = np.finfo(scores.dtype if scores.dtype.kind == "f" else np.float64).eps
    p = np.clip(scores.astype(np.float64), eps, 1 - eps)
    given = np.where(np.asarray(truth) == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(len(p)), np.asarray(truth)]
    return _mean(-np.log(given))


def brier(truth: Array, scores: Array) -> Measure:
    """Return the mean squared error of the probabilities: of the positive class, or summed over several."""
    import numpy as np

    p = np.asarray(scores, np.float64)
    if p.ndim == 1:
        return _mean((p - (np.asarray(truth) == 1)) ** 2)
    hot = np.zeros_like(p)
    hot[np.arange(len(p)), np.asarray(truth)] = 1.0
    return _mean(((p - hot) ** 2).sum(axis=1))


def rmse(truth: Array, values: Array) -> Measure:
    """Return the root of the mean squared error."""
    squared = _mean(_errors(truth, values) ** 2)
    return lambda weights: squared(weights) ** 0.5


def mae(truth: Array, values: Array) -> Measure:
    """Return the mean absolute error."""
    return _mean(abs(_errors(truth, values)))


def mape(truth: Array, values: Array) -> Measure:
    """Return the mean absolute error relative to the truth; a truth of 0 gives a huge number, as in scikit-learn."""
    import numpy as np

    size = np.maximum(np.abs(np.asarray(truth, np.float64)), np.finfo(np.float64).eps)
    return _mean(np.abs(_errors(truth, values)) / size)


def median_absolute_error(truth: Array, values: Array) -> Measure:
    """Return the median of the absolute errors; between two middle rows, their mean."""
    import numpy as np

    size = np.abs(_errors(truth, values))
    order = np.argsort(size)
    size = size[order]

    def measure(weights: Array) -> float:
        total = np.cumsum(weights[order], dtype=np.float64)
        if not len(total) or total[-1] == 0:
            return float("nan")
        half = total[-1] / 2
        low = np.searchsorted(total, half, side="left")
        high = min(np.searchsorted(total, half, side="right"), len(size) - 1)
        return float((size[low] + size[high]) / 2)

    return measure


def r2(truth: Array, values: Array) -> Measure:
    """Return 1 minus the squared errors over the squared distances of the truth from its mean."""
    import numpy as np

    y = np.asarray(truth, np.float64)
    centred = y - y.mean() if len(y) else y  # keeps the sums small, whatever the level of the target
    squared = _errors(truth, values) ** 2

    def measure(weights: Array) -> float:
        whole = weights.sum(dtype=np.float64)
        if whole == 0:
            return float("nan")
        spread = np.dot(weights, centred**2) - np.dot(weights, centred) ** 2 / whole
        return float(1 - np.dot(weights, squared) / spread) if spread > 0 else float("nan")

    return measure


def _errors(truth: Array, values: Array) -> Array:
    import numpy as np

    return np.asarray(values, np.float64) - np.asarray(truth, np.float64)
