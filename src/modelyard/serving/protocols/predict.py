"""`POST /predict`: rows with column names in, labels and probabilities out."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models
from modelyard.serving.protocols import arrow
from modelyard.serving.service import Asked, Service

__all__ = ["predict"]

_JSON = b"application/json"
_encode = msgspec.json.Encoder().encode


def predict(models: Models, exchange: Exchange) -> None:
    """Answer one body; row n of several is logged as `ID/n`.

    Raises:
        HttpError: The body does not fit the signature.
    """
    service = models.default
    if exchange.head.usual:
        service.ask(exchange, service.validator.parse(exchange.body), _render)
        return
    headers = exchange.headers
    kind = headers.get(b"content-type", _JSON)
    if kind != _JSON and kind.partition(b";")[0].strip().lower() == arrow.ARROW:
        parsed = arrow.parse(service.validator.columns, exchange.body, service.limits.body)
    else:
        parsed = service.validator.parse(exchange.body)
    as_arrow = b"accept" in headers and arrow.wanted(headers[b"accept"])
    service.ask(exchange, parsed, arrow.render if as_arrow else _render)


def _render(service: Service, asked: Asked) -> bytes:
    if asked.shaped or asked.parsed.warnings:
        return _encode(_told(service, asked))
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
