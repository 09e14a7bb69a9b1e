"""The answers of `POST /predict` as JSON, by types that are compiled once for a model's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import starmap
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.inference.decode import Label
from modelyard.inference.kernels import compiled
from modelyard.records import Problem
from modelyard.serving.asked import Asked, Body, noted
from modelyard.serving.http.exchange import JSON, STATUS_LINES, all_usual, send

if TYPE_CHECKING:
    import numpy as np

    from modelyard.serving.service import Service

    Array = np.ndarray[Any, Any]

__all__ = ["Writer", "written"]

_encode = msgspec.json.Encoder().encode
_ids = attrgetter("id")


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
        labels: The classes in the type they had in the training data.
        kind: What the answers are, with the headers that follow it.
    """

    def __init__(self, problem: Problem, model: str, labels: Sequence[Label], kind: bytes = JSON) -> None:
        self._model = msgspec.Raw(_encode(model))
        self._answer: Any = None
        if problem.task != "regression":
            self._answer = msgspec.defstruct("Answer", [("label", Label), ("probabilities", Any)], gc=False)
        self._probabilities = _probabilities(problem.classes)
        kernels = compiled()
        self._letters = None if kernels is None else kernels.letters
        self._form = _form(problem, model, kind)
        self._labels = {label: _encode(label) for label in labels} if self._answer is not None else {}
        # Columns of the output, if the model is what it says.
        self._width = len(problem.classes) or 1

    def post(self, group: list[Asked], output: Array | None) -> bool:
        """Answer a group at once, if all of it is usual: rows that came alone, and answers with nothing beside them.

        What goes out is what `written` and `Exchange.reply` would make of each.

        Args:
            group: The requests.
            output: The model's output; none if no row fits.
        """
        if self._letters is None or output is None or output.shape != (len(group), self._width):
            return False
        exchanges = [asked.exchange for asked in group]
        if not _all_alone(group) or not all_usual(exchanges):
            return False
        predictions = [asked.predictions[0] for asked in group] if self._labels else []
        send(exchanges, self.alone(list(map(_ids, exchanges)), predictions, output))
        return True

    @property
    def writes_alone(self) -> bool:
        """Whether there is what `alone` needs."""
        return self._letters is not None

    def alone(self, ids: list[str], predictions: list[Label], output: Array) -> list[bytes]:
        """Return the whole answers to requests of one row each, headers and all.

        Args:
            ids: Those of the requests, which need the usual headers only.
            predictions: The label of each; nothing for a regression.
            output: The model's output, as wide as it has classes.
        """
        said = self._labels
        labels = list(map(said.__getitem__, predictions)) if said else [b""] * len(ids)
        numbers = _encode(output.ravel().tolist())
        letters: list[bytes] = self._letters(self._form, ids, labels, numbers)  # type: ignore[misc]
        return letters

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


def _all_alone(group: list[Asked]) -> bool:
    """Say that every request of a group is of one row, to be answered by `written`, and nothing is said of the row."""
    return all(one.render is written and one.parsed.count == 1 and not one.parsed.warnings for one in group)


def _form(
    problem: Problem, model: str, kind: bytes
) -> tuple[bytes, bytes, bytes, bytes, bytes, tuple[bytes, ...], bytes]:
    """Return what the answers to requests of one row have in common, see `letters` of the kernels."""
    above = (STATUS_LINES[200] + kind + b"\r\ncontent-length: ", b"\r\nx-request-id: ", b"\r\n\r\n")
    says = b'","model":%s,"predictions":[{' % _encode(model)
    if problem.task == "regression":
        return (*above, b'{"id":"', says + b'"value":', (b"",), b"}]}")
    first, *others = [b"%s:" % _encode(name) for name in problem.classes]
    names = (b',"probabilities":{' + first, *(b"," + name for name in others))
    return (*above, b'{"id":"', says + b'"label":', names, b"}}]}")


def written(service: Service, asked: Asked) -> bytes | Body:
    """Return the body of the answer to a request of `POST /predict`."""
    if asked.shaped or asked.parsed.warnings:
        return Body(_encode(_told(service, asked)), noted(asked))
    return service.writer.body(asked.exchange.id, asked.rows, asked.predictions)


def _told(service: Service, asked: Asked) -> dict[str, Any]:
    if asked.shaped:
        predictions: Any = _shaped(service, asked)
    else:
        predictions = service.writer.answers(asked.rows, asked.predictions)
    body = {"id": asked.exchange.id, "model": service.version.digest, "predictions": predictions}
    return {**body, "warnings": asked.parsed.warnings} if asked.parsed.warnings else body


def _shaped(service: Service, asked: Asked) -> list[dict[str, Any]]:
    """Return what a caller sees who does not see all; `withheld` names the guard that held an answer back."""
    answered = "value" if service.problem.task == "regression" else "label"
    return [
        {answered: row["prediction"], **{key: value for key, value in row.items() if key != "prediction"}}
        for row in asked.decoded
    ]
