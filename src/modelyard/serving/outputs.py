"""What the model said of a group of requests: to each its part, and all of it for the log."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any

from modelyard.inference.decode import Label, predictions_of
from modelyard.records import Problem
from modelyard.serving.asked import Asked, AskedMuch
from modelyard.serving.batch import INLINE_ROWS, Rows
from modelyard.store.packed import Packed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["hand_out", "packed"]


def hand_out(
    group: list[Asked], counts: list[int], output: Array, problem: Problem, labels: Sequence[Label], *, much: bool
) -> bool:
    """Give each request its part of the output, and say whether all of it is finite.

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
        return isfinite(output.sum(dtype="float64"))
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
    # Written out for two classes, which takes a fifth of the time.
    return isfinite(sum([a + b for a, b in rows]) if len(classes) == 2 else sum(map(sum, rows)))


def packed(group: list[Asked], output: Array, problem: Problem) -> Packed:
    """Return the answers to a group for the log, every row of which was answered."""
    data, classes = output.astype("<f4", copy=False).tobytes(), list(problem.classes)
    if not classes:
        return Packed(len(output), ["prediction"], data, False, {})
    predictions = list(chain.from_iterable([one.predictions for one in group]))
    return Packed(len(output), classes, data, False, {"prediction": predictions}, "probabilities")
