"""The metrics: what each one means, and how it is measured on arrays.

Reading the registry loads nothing heavy; numpy is imported when something is measured. What a metric takes:

| task | `truth` | `labels` | `scores` | `values` |
| --- | --- | --- | --- | --- |
| binary | 1 for the positive class, else 0 | the same, predicted | probability of the positive class | |
| multiclass | position of the class | the same, predicted | rows x classes | |
| regression | numbers | | | numbers |

Where a metric is undefined (no positives, one class only) it is not a number; `precision`, `recall` and `f1` are 0
where nothing was predicted or there was nothing to find, as in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelyard.checks import curve_areas, losses, rates
from modelyard.records import Task

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["METRICS", "Metric", "Needs", "Weighted"]

Needs = Literal["labels", "scores", "values"]
# Weight of each row -> value of the metric.
Weighted = Callable[["Array"], float]

_BINARY: tuple[Task, ...] = ("binary",)
_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_NUMBERS: tuple[Task, ...] = ("regression",)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Name, as it stands in the file.
        about: What it measures, in one sentence.
        tasks: Problems it fits.
        higher_is_better: Its direction; none for a share that is neither good nor bad.
        needs: What it compares the truth with: predicted `labels`, `scores` or `values`.
        counts: For a metric that works from confusion counts alone: counts `(..., true, predicted)` -> values `(...)`.
        share: For a share of rows: counts -> how many, and of how many; such a metric has an exact interval.
        prepare: For the others: truth and guess -> a function of the weights of the rows.
        of_target: It is measured in units of the target.
    """

    name: str
    about: str
    tasks: tuple[Task, ...]
    higher_is_better: bool | None
    needs: Needs
    counts: Callable[[Array], Array] | None = None
    share: Callable[[Array], tuple[Array, Array]] | None = None
    prepare: Callable[[Array, Array], Weighted] | None = None
    of_target: bool = False

    def __call__(self, truth: Array, guess: Array, classes: int = 0) -> float:
        """Measure.

        Args:
            truth: The truth of each row, see the table of this module.
            guess: What was predicted for each row, of the kind the metric `needs`.
            classes: Number of classes; taken from what is there if not given.

        Examples:
            >>> import numpy as np
            >>> METRICS["roc_auc"](np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
            0.75
        """
        import numpy as np

        if self.counts is not None:
            return float(self.counts(rates.confusion(truth, guess, classes)))
        return self.weighted(truth, guess, classes)(np.ones(len(truth)))

    def weighted(self, truth: Array, guess: Array, classes: int = 0) -> Weighted:
        """Return the metric as a function of the weights of the rows; sorting and the like is done once."""
        if self.prepare is not None:
            return self.prepare(truth, guess)
        if self.counts is None:
            raise TypeError(f"metric `{self.name}` has no way to be measured")
        return rates.weighted(self.counts, truth, guess, classes)


def _rate(
    name: str, about: str, better: bool | None, share: Callable[[Array], tuple[Array, Array]], tasks: tuple[Task, ...]
) -> Metric:
    return Metric(name, about, tasks, better, "labels", counts=rates.ratio(share), share=share)


_ALL = (
    Metric(
        "roc_auc",
        "The chance that a positive row is scored above a negative one (multiclass: mean of each against the rest).",
        _CLASSES,
        True,
        "scores",
        prepare=curve_areas.roc_auc,
    ),
    Metric(
        "average_precision",
        "The mean precision over all recalls, which is the area under the precision-recall curve in steps.",
        _BINARY,
        True,
        "scores",
        prepare=curve_areas.average_precision,
    ),
    _rate("accuracy", "The share of rows whose class is predicted right.", True, rates.right, _CLASSES),
    Metric(
        "balanced_accuracy",
        "The mean of the recall of each class, so that a rare class counts as much as a frequent one.",
        _CLASSES,
        True,
        "labels",
        counts=rates.balanced_accuracy,
    ),
    Metric(
        "precision",
        "The share of positive answers that are right (multiclass: mean over the classes).",
        _CLASSES,
        True,
        "labels",
        counts=rates.precision,
    ),
    Metric(
        "recall",
        "The share of positive rows that are found (multiclass: mean over the classes).",
        _CLASSES,
        True,
        "labels",
        counts=rates.recall,
    ),
    Metric(
        "f1",
        "The harmonic mean of precision and recall (multiclass: mean over the classes).",
        _CLASSES,
        True,
        "labels",
        counts=rates.f1,
    ),
    Metric(
        "log_loss",
        "The mean negative logarithm of the probability that was given to the true class.",
        _CLASSES,
        False,
        "scores",
        prepare=losses.log_loss,
    ),
    Metric(
        "brier",
        "The mean squared error of the probabilities (multiclass: summed over the classes).",
        _CLASSES,
        False,
        "scores",
        prepare=losses.brier,
    ),
    Metric(
        "rmse",
        "The root of the mean squared error, in units of the target.",
        _NUMBERS,
        False,
        "values",
        prepare=losses.rmse,
        of_target=True,
    ),
    Metric(
        "mae",
        "The mean absolute error, in units of the target.",
        _NUMBERS,
        False,
        "values",
        prepare=losses.mae,
        of_target=True,
    ),
    Metric("r2", "The share of the target's variance that is explained.", _NUMBERS, True, "values", prepare=losses.r2),
    Metric(
        "mape",
        "The mean absolute error relative to the true value.",
        _NUMBERS,
        False,
        "values",
        prepare=losses.mape,
    ),
    Metric(
        "median_absolute_error",
        "The error that half of the rows stay below, in units of the target.",
        _NUMBERS,
        False,
        "values",
        prepare=losses.median_absolute_error,
        of_target=True,
    ),
    _rate(
        "false_positive_rate",
        "The share of negative rows that are called positive.",
        False,
        rates.false_positive,
        _BINARY,
    ),
    _rate(
        "false_negative_rate",
        "The share of positive rows that are called negative.",
        False,
        rates.false_negative,
        _BINARY,
    ),
    _rate(
        "false_discovery_rate", "The share of positive answers that are wrong.", False, rates.false_discovery, _BINARY
    ),
    _rate("false_omission_rate", "The share of negative answers that are wrong.", False, rates.false_omission, _BINARY),
    _rate("selection_rate", "The share of rows that are called positive.", None, rates.selected, _BINARY),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
