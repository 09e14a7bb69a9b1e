"""`POST /predict`: rows with column names in, labels and probabilities out."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.serving.service import Service

__all__ = ["predict"]

_encode = msgspec.json.Encoder().encode


async def predict(service: Service, body: bytes, request_id: str, caller: str) -> bytes:
    """Answer one body; row n of several is logged as `ID/n`.

    Raises:
        HttpError: The body does not fit the signature.
    """
    parsed = service.validator.parse(body)
    decoded = (await service.answer(parsed, request_id, caller)).decoded
    answer: dict[str, Any] = {"id": request_id, "model": service.version.digest}
    if service.problem.task == "regression":
        answer["predictions"] = [{"value": row["prediction"]} for row in decoded]
    else:
        answer["predictions"] = [{"label": row["prediction"], "probabilities": row["probabilities"]} for row in decoded]
    if parsed.warnings:
        answer["warnings"] = parsed.warnings
    return _encode(answer)
