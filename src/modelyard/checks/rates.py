"""What confusion counts tell: rates and the metrics made of them, for one table of counts or for thousands at once.

Counts have the shape `(..., true class, predicted class)`; a binary problem has the classes 0 and 1, 1 is positive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = [
    "balanced_accuracy",
    "confusion",
    "f1",
    "false_discovery",
    "false_negative",
    "false_omission",
    "false_positive",
    "precision",
    "ratio",
    "recall",
    "right",
    "selected",
    "weighted",
]

Share = Callable[["Array"], "tuple[Array, Array]"]


def confusion(truth: Array, labels: Array, classes: int = 0) -> Array:
    """Count rows by true and predicted class.

    Args:
        truth: Position of the true class of each row.
        labels: Position of the predicted class.
        classes: Number of classes; taken from what is there (at least 2) if not given.
    """
    import numpy as np

    truth, labels = np.asarray(truth, np.int64), np.asarray(labels, np.int64)
    k = classes or _classes(truth, labels)
    return np.bincount(truth * k + labels, minlength=k * k).reshape(k, k)


def weighted(
    counts: Callable[[Array], Array], truth: Array, labels: Array, classes: int = 0
) -> Callable[[Array], float]:
    """Return a metric of counts as a function of the weights of the rows."""
    import numpy as np

    truth, labels = np.asarray(truth, np.int64), np.asarray(labels, np.int64)
    k = classes or _classes(truth, labels)
    cell = truth * k + labels
    return lambda weights: float(counts(np.bincount(cell, weights, k * k).reshape(k, k)))


def _classes(truth: Array, labels: Array) -> int:
    return max(2, int(truth.max(initial=0)) + 1, int(labels.max(initial=0)) + 1)


def divide(part: Array, whole: Array, empty: float) -> Array:
    """Divide, and take `empty` where the whole is 0."""
    import numpy as np

    out = np.full(np.broadcast(part, whole).shape, empty)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def ratio(share: Share) -> Callable[[Array], Array]:
    """Return a share as a function of counts; not a number where there is nothing to be a share of."""

    def value(counts: Array) -> Array:
        part, whole = share(counts)
        return divide(part, whole, float("nan"))

    return value


def right(counts: Array) -> tuple[Array, Array]:
    """Rows predicted right, of all rows."""
    import numpy as np

    return np.trace(counts, axis1=-2, axis2=-1), counts.sum(axis=(-2, -1))


def false_positive(counts: Array) -> tuple[Array, Array]:
    """Negative rows called positive, of all negative rows."""
    return counts[..., 0, 1], counts[..., 0, :].sum(axis=-1)


def false_negative(counts: Array) -> tuple[Array, Array]:
    """Positive rows called negative, of all positive rows."""
    return counts[..., 1, 0], counts[..., 1, :].sum(axis=-1)


def false_discovery(counts: Array) -> tuple[Array, Array]:
    """Wrong positive answers, of all positive answers."""
    return counts[..., 0, 1], counts[..., :, 1].sum(axis=-1)


def false_omission(counts: Array) -> tuple[Array, Array]:
    """Wrong negative answers, of all negative answers."""
    return counts[..., 1, 0], counts[..., :, 0].sum(axis=-1)


def selected(counts: Array) -> tuple[Array, Array]:
    """Positive answers, of all answers."""
    return counts[..., :, 1].sum(axis=-1), counts.sum(axis=(-2, -1))


def _by_class(counts: Array) -> tuple[Array, Array, Array]:
    """Return rows found, rows there and rows answered, for each class."""
    import numpy as np

    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)


def _macro(values: Array, counts: Array, there: Array) -> Array:
    """Take the positive class of a binary problem, or the mean over the classes that occur."""
    if counts.shape[-1] == 2:
        positive: Array = values[..., 1]
        return positive
    return divide((values * there).sum(axis=-1), there.sum(axis=-1), float("nan"))


def precision(counts: Array) -> Array:
    """Share of the answers of a class that are right; 0 where it was never answered."""
    found, true, said = _by_class(counts)
    return _macro(divide(found, said, 0.0), counts, (true + said) > 0)


def recall(counts: Array) -> Array:
    """Share of the rows of a class that are found; 0 where there are none."""
    found, true, said = _by_class(counts)
    return _macro(divide(found, true, 0.0), counts, (true + said) > 0)


def f1(counts: Array) -> Array:
    """Harmonic mean of precision and recall."""
    found, true, said = _by_class(counts)
    return _macro(divide(2 * found, true + said, 0.0), counts, (true + said) > 0)


def balanced_accuracy(counts: Array) -> Array:
    """Mean recall over the classes that occur in the truth."""
    found, true, _ = _by_class(counts)
    there = true > 0
    return divide(divide(found, true, 0.0).sum(axis=-1), there.sum(axis=-1), float("nan"))
