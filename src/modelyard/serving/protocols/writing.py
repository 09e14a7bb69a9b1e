"""The answers of `POST /predict` as JSON, by types that are compiled once for a model's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any

import msgspec

from modelyard.inference.decode import Label
from modelyard.records import Problem

__all__ = ["Writer"]

_encode = msgspec.json.Encoder().encode


class _Body(msgspec.Struct, gc=False):
    id: str
    model: msgspec.Raw
    predictions: Sequence[Any]


class _Value(msgspec.Struct, gc=False):
    value: Label


class Writer:
    """Writes the answers of one version of a model.

    Args:
        problem: What was learned.
        model: The version's digest, as it stands in answers.
    """

    def __init__(self, problem: Problem, model: str) -> None:
        self._model = msgspec.Raw(_encode(model))
        self._answer: Any = None
        if problem.task != "regression":
            self._answer = msgspec.defstruct("Answer", [("label", Label), ("probabilities", Any)], gc=False)
        self._probabilities = _probabilities(problem.classes)

    def body(self, name: str, rows: list[list[float]], predictions: Sequence[Label]) -> bytes:
        """Return the whole body of the answer to the request of an id."""
        if len(rows) == 1 and (answer := self._answer) is not None:
            answers: list[Any] = [answer(predictions[0], self._probabilities(*rows[0]))]
        else:
            answers = self.answers(rows, predictions)
        return _encode(_Body(name, self._model, answers))

    def answers(self, rows: list[list[float]], predictions: Sequence[Label]) -> list[Any]:
        """Return what stands in an answer for each row, for the JSON encoder.

        Args:
            rows: The model's output.
            predictions: What is answered to each.
        """
        if self._answer is None:
            return list(map(_Value, predictions))
        return list(map(self._answer, predictions, starmap(self._probabilities, rows)))


def _probabilities(classes: Sequence[str]) -> Callable[..., Any]:
    """Return what holds the probabilities of a row: compiled, or a dictionary for names that no field can have."""
    fields = [(f"p{at}", float, msgspec.field(name=name)) for at, name in enumerate(classes)]
    try:
        made: Any = msgspec.defstruct("Probabilities", fields, gc=False)
    except ValueError:
        return lambda *row: dict(zip(classes, row, strict=True))
    return made  # type: ignore[no-any-return]
