"""`POST /predict`: rows with column names in, labels and probabilities out."""

from __future__ import annotations

from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models
from modelyard.serving.protocols import arrow
from modelyard.serving.protocols.writing import written

__all__ = ["predict"]

_JSON = b"application/json"


def predict(models: Models, exchange: Exchange) -> None:
    """Answer one body; row n of several is logged as `ID/n`.

    Raises:
        HttpError: The body does not fit the signature.
    """
    service = models.default
    if exchange.head.usual:
        service.ask(exchange, service.validator.parse(exchange.body), written)
        return
    headers = exchange.headers
    kind = headers.get(b"content-type", _JSON)
    if kind != _JSON and kind.partition(b";")[0].strip().lower() == arrow.ARROW:
        parsed = arrow.parse(service.validator.columns, exchange.body, service.limits.body)
    else:
        parsed = service.validator.parse(exchange.body)
    as_arrow = b"accept" in headers and arrow.wanted(headers[b"accept"])
    service.ask(exchange, parsed, arrow.render if as_arrow else written)
