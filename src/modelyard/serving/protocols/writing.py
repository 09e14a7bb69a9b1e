"""The answers of `POST /predict` as JSON, by types that are compiled once for a model's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modelyard.inference.decode import Label
from modelyard.records import Problem

__all__ = ["Writer"]

# A row of the model's output and its prediction -> what stands in the answer.
_One = Callable[[list[float], Label], Any]

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
    """

    def __init__(self, problem: Problem, model: str) -> None:
        self._one = _value if problem.task == "regression" else _label(problem.classes)
        self._model = model

    def body(self, name: str, rows: list[list[float]], predictions: Sequence[Label]) -> bytes:
        """Return the whole body of the answer to the request of an id."""
        if len(rows) == 1:
            return _encode(_Body(name, self._model, (self._one(rows[0], predictions[0]),)))
        return _encode(_Body(name, self._model, self.answers(rows, predictions)))

    def answers(self, rows: list[list[float]], predictions: Sequence[Label]) -> list[Any]:
        """Return what stands in an answer for each row, for the JSON encoder."""
        return list(map(self._one, rows, predictions))


def _value(row: list[float], prediction: Label) -> dict[str, Label]:
    return {"value": prediction}


def _label(classes: Sequence[str]) -> _One:
    answer: Any = msgspec.defstruct("Answer", [("label", Label), ("probabilities", Any)], gc=False)
    compiled = _probabilities(classes)

    def labelled(row: list[float], prediction: Label) -> Any:
        return answer(prediction, compiled(*row))

    return labelled


def _probabilities(classes: Sequence[str]) -> Callable[..., Any]:
    """Return what holds the probabilities of a row: compiled, or a dictionary for names that no field can have."""
    fields = [(f"p{at}", float, msgspec.field(name=name)) for at, name in enumerate(classes)]
    try:
        made: Any = msgspec.defstruct("Probabilities", fields, gc=False)
    except ValueError:
        return lambda *row: dict(zip(classes, row, strict=True))
    return made  # type: ignore[no-any-return]
