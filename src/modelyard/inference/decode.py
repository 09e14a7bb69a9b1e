"""Turn what a model answered into labels of the right type and probabilities by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard.records import Problem

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = [
    "THRESHOLD",
    "Label",
    "decode",
    "decode_rows",
    "described",
    "labelled",
    "labels_of",
    "picked",
    "predictions_of",
    "scores",
]

# A binary model says the positive class from this probability on.
THRESHOLD = 0.5

Label = str | int | float | bool


def scores(output: Array, problem: Problem) -> Array:
    """Return one number a row: the probability of the positive class, of the likeliest class, or the prediction."""
    if problem.task == "regression":
        return output[:, 0]
    if problem.task == "binary":
        return output[:, problem.classes.index(problem.positive)]
    return output.max(axis=1)


def picked(output: Array, problem: Problem, threshold: float = THRESHOLD) -> Array:
    """Return the position in `Problem.classes` of the class that is answered for each row.

    Args:
        output: Probabilities, rows x classes.
        problem: A problem with classes.
        threshold: Probability from which on a binary model says the positive class.
    """
    import numpy as np

    if problem.task != "binary":
        return output.argmax(axis=1)
    positive = problem.classes.index(problem.positive)
    return np.where(output[:, positive] >= threshold, positive, 1 - positive)


def decode(
    output: Array, problem: Problem, labels: Sequence[Label] = (), threshold: float = THRESHOLD
) -> list[dict[str, Any]]:
    """Return one answer a row: `prediction`, and for a classifier `probabilities` by class.

    Args:
        output: What the predictor returned.
        problem: What was learned.
        labels: The classes in the type they had in the training data, see `labels_of`; text where empty.
        threshold: Probability from which on a binary model says the positive class.
    """
    return decode_rows(output.tolist(), problem, labels, threshold)


def decode_rows(
    rows: list[list[float]], problem: Problem, labels: Sequence[Label] = (), threshold: float = THRESHOLD
) -> list[dict[str, Any]]:
    """Return what `decode` does, of rows that are lists already: for a few of them arrays cost more than they save."""
    return described(rows, predictions_of(rows, problem, labels, threshold), problem.classes)


def described(rows: list[list[float]], predictions: Sequence[Label], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return what `decode` does, of rows whose predictions are known.

    Args:
        rows: What the predictor returned, as lists.
        predictions: The label or number that is answered to each row.
        classes: The classes as text; none for a regression.
    """
    if not classes:
        return [{"prediction": prediction} for prediction in predictions]
    if len(classes) == 2:
        first, second = classes
        return [
            {"prediction": prediction, "probabilities": {first: row[0], second: row[1]}}
            for prediction, row in zip(predictions, rows, strict=True)
        ]
    return [
        {"prediction": prediction, "probabilities": dict(zip(classes, row, strict=True))}
        for prediction, row in zip(predictions, rows, strict=True)
    ]


def predictions_of(
    rows: list[list[float]], problem: Problem, labels: Sequence[Label] = (), threshold: float = THRESHOLD
) -> list[Label]:
    """Return the label or number that is answered to each row."""
    if problem.task == "regression":
        return [row[0] for row in rows]
    labels = labels or problem.classes
    if problem.task == "binary":
        yes = problem.classes.index(problem.positive)
        positive, negative = labels[yes], labels[1 - yes]
        return [positive if row[yes] >= threshold else negative for row in rows]
    return [labels[row.index(max(row))] for row in rows]


def labelled(output: Array, problem: Problem, labels: Sequence[Label]) -> list[Label]:
    """Return the label that is answered to each row.

    Args:
        output: Probabilities, rows x classes.
        problem: A problem with classes.
        labels: The classes in the type they had in the training data.
    """
    if problem.task != "binary":
        return list(map(list(labels).__getitem__, picked(output, problem).tolist()))
    yes = problem.classes.index(problem.positive)
    # What is not the positive one comes first: false is 0.
    pair = [labels[1 - yes], labels[yes]]
    return list(map(pair.__getitem__, (output[:, yes] >= THRESHOLD).tolist()))


def labels_of(classes: Sequence[str], source: str) -> list[Label]:
    """Return the classes in the type of the target column.

    Args:
        classes: Labels as text.
        source: Polars type of the target column, e.g. `Int64`.
    """
    if source == "Boolean":
        return [c == "true" for c in classes]
    if source.startswith(("Int", "UInt")):
        return [int(c) for c in classes]
    if source.startswith("Float"):
        return [float(c) for c in classes]
    return list(classes)
