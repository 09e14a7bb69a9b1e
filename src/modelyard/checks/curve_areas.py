"""Areas under curves of a score, as functions of the weights of the rows: sorted once, then one pass a measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["average_precision", "roc_auc"]


def roc_auc(truth: Array, scores: Array) -> Callable[[Array], float]:
    """Return the area under the ROC curve; rows with equal scores count half.

    With several columns of scores it is the plain mean over the classes, each against the rest.
    """
    import numpy as np

    scores = np.asarray(scores)
    if scores.ndim == 1:
        return _roc_auc(np.asarray(truth) == 1, scores)
    parts = [_roc_auc(np.asarray(truth) == c, scores[:, c]) for c in range(scores.shape[1])]
    return lambda weights: float(sum(part(weights) for part in parts) / len(parts))


def _roc_auc(positive: Array, score: Array) -> Callable[[Array], float]:
    import numpy as np

    order = np.argsort(score)
    positive = positive[order]
    ends = _ends(score[order])
    negative = ~positive

    def measure(weights: Array) -> float:
        w = weights[order]
        # Cumulated weights at the end of each run of equal scores are the corners of the curve; between two
        # corners it is a straight line, which is what makes a tie count half.
        pos = _cumulated(w * positive, ends)
        neg = _cumulated(w * negative, ends)
        whole = pos[-1] * neg[-1]
        if whole == 0:
            return float("nan")
        return float(np.dot(np.diff(pos), neg[1:] + neg[:-1]) / (2 * whole))

    return measure


def average_precision(truth: Array, scores: Array) -> Callable[[Array], float]:
    """Return the precision at each threshold, weighted by the recall gained there."""
    import numpy as np

    order = np.argsort(-np.asarray(scores))
    positive = (np.asarray(truth) == 1)[order]
    ends = _ends(np.asarray(scores)[order])

    def measure(weights: Array) -> float:
        w = weights[order]
        pos = _cumulated(w * positive, ends)
        every = _cumulated(w, ends)
        if pos[-1] == 0:
            return float("nan")
        precision = np.divide(pos[1:], every[1:], out=np.zeros(len(pos) - 1), where=every[1:] > 0)
        return float(np.dot(np.diff(pos), precision) / pos[-1])

    return measure


def _ends(ordered: Array) -> Array | None:
    """Return the last position of each run of equal values; none where all differ."""
    import numpy as np

    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return None if len(ends) == len(ordered) else ends


def _cumulated(weights: Array, ends: Array | None) -> Array:
    import numpy as np

    total = np.cumsum(weights, dtype=np.float64)
    if ends is not None:
        total = total[ends]
    return np.concatenate(([0.0], total))
