"""`GET /openapi.json`: the description of the endpoint."""

from __future__ import annotations

from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import MOUNT
from modelyard.serving.models import Models

__all__ = ["openapi"]


def openapi(models: Models, exchange: Exchange) -> bytes:
    """Return the description of what answers where no name is given."""
    # Whoever is never asked for it need not know how it is made.
    from modelyard.serving.contract.description import described
    from modelyard.serving.contract.schemas import Endpoint

    service = models.default
    labels = tuple(service.labels)
    about = Endpoint(service.endpoint, service.version, labels, service.limits, service.usual)
    mounted = exchange.target.startswith(MOUNT)
    return described(about, at=f"/models/{service.endpoint}" if mounted else "")
