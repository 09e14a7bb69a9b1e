"""What a chart of the predictions needs, as plain numbers of bounded size.

`details` of the evidence, by problem:

| key | problems | holds |
| --- | --- | --- |
| `roc` | classes | `fpr`, `tpr`, `threshold`; for several classes a list of these with `name`, each against the rest |
| `pr` | classes | `recall`, `precision`, `threshold`; likewise |
| `calibration` | classes | `predicted`, `observed`, `low`, `high`, `n` of each bin (several: of the likeliest class) |
| `histogram` | classes | `edges`, `counts` by true class, `threshold`; of the score, or of the likeliest class |
| `confusion` | classes | `labels`, `counts` (true class x predicted class), `threshold`, `left_out` |
| `residuals` | numbers | `edges`, `counts` of truth minus prediction |
| `predicted` | numbers | bins of the prediction: mean `predicted` and `observed`, `low` and `high` (middle 80 %), `n` |
| `points` | numbers | up to 200 rows: `predicted`, `truth`, `residual` |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard.checks import rates
from modelyard.checks.bootstrap import wilson
from modelyard.checks.predictions import Predicted, read_predictions
from modelyard.inference.decode import THRESHOLD
from modelyard.records import Evidence, Problem

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["MOST_POINTS", "curves"]

MOST_POINTS = 200
_MOST_CURVES = 8
_MOST_CLASSES = 30
_BINS = 10
_HISTOGRAM_BINS = 40
_DIGITS = 6


def curves(*, predictions: pl.LazyFrame | pl.DataFrame, problem: Problem) -> Evidence:
    """Return the data of every chart of the predictions.

    Args:
        predictions: Table of predictions.
        problem: What was learned.
    """
    predicted = read_predictions(predictions, problem)
    if problem.task == "regression":
        details = _of_numbers(predicted)
    elif problem.task == "binary":
        details = _of_two(predicted)
    else:
        details = _of_many(predicted)
    return Evidence(
        measure="curves",
        value=None,
        n=len(predicted),
        method=f"curves of at most {MOST_POINTS} points; bins of calibration hold equal numbers of rows",
        details=details,
    )


def _of_two(predicted: Predicted) -> dict[str, Any]:
    positive, score = predicted.truth == 1, predicted.scores
    counts = {name: score[predicted.truth == at] for at, name in enumerate(predicted.classes)}
    return {
        "roc": _roc(positive, score),
        "pr": _pr(positive, score),
        "calibration": _calibration(score, positive),
        "histogram": {**_histogram(counts), "threshold": THRESHOLD},
        "confusion": {**_confusion(predicted), "threshold": THRESHOLD},
    }


def _of_many(predicted: Predicted) -> dict[str, Any]:
    import numpy as np

    shown = _frequent(predicted.truth, len(predicted.classes), _MOST_CURVES)
    likeliest = predicted.scores.max(axis=1)
    right = predicted.scores.argmax(axis=1) == predicted.truth
    against = [(predicted.classes[c], predicted.truth == c, predicted.scores[:, c]) for c in shown]
    return {
        "roc": [{"name": name, **_roc(is_one, score)} for name, is_one, score in against],
        "pr": [{"name": name, **_pr(is_one, score)} for name, is_one, score in against],
        "calibration": _calibration(likeliest, right),
        "histogram": {
            **_histogram({"right": likeliest[right], "wrong": likeliest[~right]}),
            "axis": "Probability of the likeliest class",
        },
        "confusion": _confusion(predicted),
        "classes": {name: int(n) for name, n in zip(predicted.classes, np.bincount(predicted.truth), strict=False)},
    }


def _frequent(codes: Array, classes: int, most: int) -> list[int]:
    """Return the most frequent classes, in their own order."""
    import numpy as np

    seen = np.bincount(codes, minlength=classes)
    return sorted(np.argsort(-seen, kind="stable")[:most].tolist())


def _corners(positive: Array, score: Array) -> tuple[Array, Array, Array]:
    """Return each distinct score, from high to low, with the positives and the rows at or above it."""
    import numpy as np

    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return ordered[ends], np.cumsum(positive[order])[ends], ends + 1


def _roc(positive: Array, score: Array) -> dict[str, Any]:
    import numpy as np

    thresholds, found, said = _corners(positive, score)
    tpr = np.append(0.0, found / max(1, found[-1]))
    fpr = np.append(0.0, (said - found) / max(1, said[-1] - found[-1]))
    # A point between two others on one straight line adds nothing.
    bend = np.append(True, np.append((np.diff(fpr, 2) != 0) | (np.diff(tpr, 2) != 0), True))
    at = _spread(np.flatnonzero(bend), fpr + tpr)
    cut = np.append(np.nan, thresholds)
    return {"fpr": _list(fpr[at]), "tpr": _list(tpr[at]), "threshold": _list(cut[at])}


def _pr(positive: Array, score: Array) -> dict[str, Any]:
    import numpy as np

    thresholds, found, said = _corners(positive, score)
    recall = found / max(1, found[-1])
    at = _spread(np.arange(len(recall)), recall)
    return {"recall": _list(recall[at]), "precision": _list((found / said)[at]), "threshold": _list(thresholds[at])}


def _spread(points: Array, along: Array) -> Array:
    """Keep at most `MOST_POINTS` of the points, first and last among them, evenly along a growing measure."""
    import numpy as np

    if len(points) <= MOST_POINTS:
        return points
    where = along[points]
    wanted = np.linspace(where[0], where[-1], MOST_POINTS)
    kept = np.unique(np.clip(np.searchsorted(where, wanted), 0, len(points) - 1))
    kept[0], kept[-1] = 0, len(points) - 1
    return points[np.unique(kept)]


def _calibration(score: Array, happened: Array) -> dict[str, Any]:
    """Compare mean score and observed share in bins of equal numbers of rows; equal scores stay together."""
    import numpy as np

    bins = _equal_bins(score, _BINS)
    n = np.bincount(bins)
    hits = np.bincount(bins, happened)
    mean = np.bincount(bins, score) / n
    low, high = wilson(hits, n)
    return {
        "predicted": _list(mean),
        "observed": _list(hits / n),
        "low": _list(low),
        "high": _list(high),
        "n": n.tolist(),
    }


def _equal_bins(values: Array, count: int) -> Array:
    """Return the bin of each value: about equally many in each, equal values in one."""
    import numpy as np

    if not len(values):
        return np.zeros(0, np.int64)
    edges = np.unique(np.quantile(values, np.arange(1, count) / count, method="lower"))
    return np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]


def _histogram(groups: dict[str, Array]) -> dict[str, Any]:
    import numpy as np

    edges = np.linspace(0.0, 1.0, _HISTOGRAM_BINS + 1)
    return {
        "edges": _list(edges),
        "counts": {name: np.histogram(np.clip(score, 0, 1), edges)[0].tolist() for name, score in groups.items()},
    }


def _confusion(predicted: Predicted) -> dict[str, Any]:
    k = len(predicted.classes)
    counts = rates.confusion(predicted.truth, predicted.labels, k)
    shown = _frequent(predicted.truth, k, _MOST_CLASSES)
    return {
        "labels": [predicted.classes[c] for c in shown],
        "counts": counts[shown][:, shown].tolist(),
        # Classes beyond the most frequent ones, which a chart has no room for.
        "left_out": k - len(shown),
    }


def _of_numbers(predicted: Predicted) -> dict[str, Any]:
    import numpy as np

    truth = np.asarray(predicted.truth, np.float64)
    values = np.asarray(predicted.scores, np.float64)
    residual = truth - values
    if not len(truth):
        return {}
    # The farthest hundredth would squeeze all others into one bar; it is counted in the outermost ones.
    low, high = np.quantile(residual, [0.005, 0.995]).tolist()
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    bins = _equal_bins(values, 2 * _BINS)
    n = np.bincount(bins)
    middle = [np.quantile(truth[bins == b], [0.1, 0.9]).tolist() for b in range(len(n))]
    at = np.unique(np.linspace(0, len(truth) - 1, MOST_POINTS).round().astype(int))
    return {
        "residuals": {
            "edges": _list(edges),
            "counts": np.histogram(np.clip(residual, low, high), edges)[0].tolist(),
        },
        "predicted": {
            "predicted": _list(np.bincount(bins, values) / n),
            "observed": _list(np.bincount(bins, truth) / n),
            "low": [one[0] for one in middle],
            "high": [one[1] for one in middle],
            "n": n.tolist(),
        },
        "points": {"predicted": _list(values[at]), "truth": _list(truth[at]), "residual": _list(residual[at])},
    }


def _list(values: Array) -> list[float | None]:
    """Return numbers as JSON has them: six significant digits, none where there is no number."""
    return [float(f"{v:.{_DIGITS}g}") if v - v == 0 else None for v in values.tolist()]
