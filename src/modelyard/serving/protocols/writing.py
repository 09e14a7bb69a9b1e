"""The answers of `POST /predict` as JSON, by an encoder that is compiled once for a model's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from modelyard.inference.decode import Label
from modelyard.records import Problem

__all__ = ["Write", "writer"]

# Rows of the model's output and their predictions -> a JSON list with one answer a row.
Write = Callable[[list[list[float]], Sequence[Label]], bytes]


def writer(problem: Problem) -> Write:
    """Compile what writes the answers of a model."""
    encode = msgspec.json.Encoder().encode
    if problem.task == "regression":

        def values(rows: list[list[float]], predictions: Sequence[Label]) -> bytes:
            return encode([{"value": prediction} for prediction in predictions])

        return values
    compiled = _probabilities(problem.classes)
    answer: Any = msgspec.defstruct("Answer", [("label", Label), ("probabilities", Any)], gc=False)

    def labels(rows: list[list[float]], predictions: Sequence[Label]) -> bytes:
        if len(rows) == 1:
            return encode((answer(predictions[0], compiled(*rows[0])),))
        return encode([answer(label, compiled(*row)) for label, row in zip(predictions, rows, strict=True)])

    return labels


def _probabilities(classes: Sequence[str]) -> Callable[..., Any]:
    """Return what holds the probabilities of a row: compiled, or a dictionary for names that no field can have."""
    fields = [(f"p{at}", float, msgspec.field(name=name)) for at, name in enumerate(classes)]
    try:
        made: Any = msgspec.defstruct("Probabilities", fields, gc=False)
    except ValueError:
        return lambda *row: dict(zip(classes, row, strict=True))
    return made  # type: ignore[no-any-return]
