"""`POST /predict`: rows with column names in, labels and probabilities out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.inference import picked
from modelyard.serving.service import Service
from modelyard.serving.validate import Parsed

if TYPE_CHECKING:
    import numpy as np

__all__ = ["predict", "predictions"]

_encode = msgspec.json.Encoder().encode


async def predict(service: Service, body: bytes, request_id: str, caller: str) -> bytes:
    """Answer one body; row n of several is logged as `id/n`.

    Raises:
        HttpError: The body does not fit the signature.
    """
    parsed = service.validator.parse(body)
    output = await service.answer(parsed, request_id, caller)
    return answer_of(service, parsed, output, request_id)


def answer_of(service: Service, parsed: Parsed, output: np.ndarray[Any, Any], request_id: str) -> bytes:
    """Return the JSON of an answer."""
    answer: dict[str, Any] = {
        "id": request_id,
        "model": service.version.digest,
        "predictions": predictions(service, output),
    }
    if parsed.warnings:
        answer["warnings"] = parsed.warnings
    return _encode(answer)


def predictions(service: Service, output: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Return one prediction a row: `value`, or `label` and `probabilities`."""
    problem = service.problem
    if problem.task == "regression":
        return [{"value": value} for value in output[:, 0].tolist()]
    labels, classes = service.labels, problem.classes
    return [
        {"label": labels[at], "probabilities": dict(zip(classes, row, strict=True))}
        for at, row in zip(picked(output, problem).tolist(), output.tolist(), strict=True)
    ]
