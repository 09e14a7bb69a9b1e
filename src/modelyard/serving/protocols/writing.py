"""The answers of `POST /predict` as JSON, by types that are compiled once for a model's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modelyard.inference.decode import Label
from modelyard.records import Problem

__all__ = ["Writer"]

# Rows of the model's output and their predictions -> what stands in the answer for each.
_Answers = Callable[[list[list[float]], Sequence[Label]], list[Any]]

_encode = msgspec.json.Encoder().encode


class _Body(msgspec.Struct, gc=False):
    id: str
    model: str
    predictions: Sequence[Any]


class Writer:
    """Writes the answers of one version of a model.

    Args:
        problem: What was learned.
        model: The version's digest, as it stands in answers.

    Attributes:
        answers: Returns what stands in an answer for each row of the model's output, for the JSON encoder.
    """

    def __init__(self, problem: Problem, model: str) -> None:
        self.answers: _Answers = _values if problem.task == "regression" else _labels(problem.classes)
        self._model = model

    def body(self, name: str, rows: list[list[float]], predictions: Sequence[Label]) -> bytes:
        """Return the whole body of the answer to the request of an id."""
        return _encode(_Body(name, self._model, self.answers(rows, predictions)))


def _values(rows: list[list[float]], predictions: Sequence[Label]) -> list[Any]:
    return [{"value": prediction} for prediction in predictions]


def _labels(classes: Sequence[str]) -> _Answers:
    answer: Any = msgspec.defstruct("Answer", [("label", Label), ("probabilities", Any)], gc=False)
    compiled = _probabilities(classes)

    def labels(rows: list[list[float]], predictions: Sequence[Label]) -> list[Any]:
        if len(rows) == 1:
            return [answer(predictions[0], compiled(*rows[0]))]
        return [answer(label, compiled(*row)) for label, row in zip(predictions, rows, strict=True)]

    return labels


def _probabilities(classes: Sequence[str]) -> Callable[..., Any]:
    """Return what holds the probabilities of a row: compiled, or a dictionary for names that no field can have."""
    fields = [(f"p{at}", float, msgspec.field(name=name)) for at, name in enumerate(classes)]
    try:
        made: Any = msgspec.defstruct("Probabilities", fields, gc=False)
    except ValueError:
        return lambda *row: dict(zip(classes, row, strict=True))
    return made  # type: ignore[no-any-return]
