"""What the model said of a group of requests: to each its part, and all of it for the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.inference.decode import Label, predictions_of
from modelyard.inference.kernels import compiled
from modelyard.records import Problem
from modelyard.serving.asked import Asked, AskedMuch
from modelyard.serving.batch import INLINE_ROWS, Rows
from modelyard.store.packed import Packed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["hand_out", "measure", "packed"]


def hand_out(
    group: list[Asked], counts: list[int], output: Array, problem: Problem, labels: Sequence[Label], *, much: bool
) -> None:
    """Give each request its part of the output.

    Args:
        group: The requests.
        counts: How many rows each has.
        output: The model's output for the rows of those that fit.
        problem: What was learned.
        labels: The classes in the type they had in the training data.
        much: One request of many rows may keep it as it is.
    """
    if much and len(output) >= INLINE_ROWS and len(group) == 1:
        group[0] = AskedMuch(group[0], output, problem, labels)
        return
    rows: Rows = output.tolist()
    predictions = predictions_of(rows, problem, labels)
    classes = problem.classes
    if counts.count(1) == len(rows) == len(group):
        for asked, row, prediction in zip(group, rows, predictions, strict=True):
            asked.rows, asked.predictions, asked.classes = [row], [prediction], classes
    else:
        at = 0
        for asked, count in zip(group, counts, strict=True):
            if asked.parsed.error is None:
                end = at + count
                asked.rows, asked.predictions, asked.classes = rows[at:end], predictions[at:end], classes
                at = end


def measure() -> Callable[[Array], tuple[float, float, float, float]]:
    """Return what measures a model's output, rows x columns: compiled, where that is there.

    Its answer: the least value, the least of what is the largest of a row, and the least and the largest sum of a row;
    none of them is a number where one of the values is none.
    """
    kernels = compiled()
    if kernels is None:
        return _bounds
    return lambda output: kernels.bounds(output) if output.dtype.char == "f" else _bounds(output)


def _bounds(output: Array) -> tuple[float, float, float, float]:
    import numpy as np

    # Written so they take half the time of an array's methods.
    add, least, most = np.add.reduce, np.minimum.reduce, np.maximum.reduce
    # An array is summed up faster along what is long.
    rows = output.T.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        sums = add(rows)
    return float(least(rows, axis=None)), float(least(most(rows))), float(least(sums)), float(most(sums))


def packed(output: Array, problem: Problem, predictions: list[Label]) -> Packed:
    """Return answers for the log, every row of which was answered.

    Args:
        output: The model's output.
        problem: What was learned.
        predictions: The label that is answered to each row; not looked at for a regression.
    """
    narrow = output if output.dtype.str == "<f4" else output.astype("<f4")
    data, classes = narrow.tobytes(), list(problem.classes)
    if not classes:
        return Packed(len(output), ["prediction"], data, False, {})
    return Packed(len(output), classes, data, False, {"prediction": predictions}, "probabilities")
