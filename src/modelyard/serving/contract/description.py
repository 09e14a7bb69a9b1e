"""The description of an endpoint in OpenAPI 3.1: what its server answers at `GET /openapi.json`, without a server."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard._kit.digest import short
from modelyard.serving.contract.operations import HEADERS, PARAMETERS, paths, responses
from modelyard.serving.contract.schemas import Endpoint, schemas

__all__ = ["described", "description"]


def description(endpoint: Endpoint, *, oip: bool = False, at: str = "") -> dict[str, Any]:
    """Return the document; the same endpoint has the same one, in the same order.

    Ranges and categories seen in training are told in words and as `x-seen`: what lies outside is answered, with a
    warning, unless a guard refuses it; then the schema does, too.

    Args:
        endpoint: What is described.
        oip: Only the routes of the Open Inference Protocol.
        at: What stands before every path; nothing for the endpoint that answers where no model is named.
    """
    routes = paths(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": endpoint.name, "version": short(endpoint.version.digest)},
        **({"servers": [{"url": at}]} if at else {}),
        "security": [{"token": []}],
        "paths": {path: item for path, item in routes.items() if not oip or path.startswith("/v2")},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "responses": responses(),
            "schemas": schemas(endpoint),
        },
    }


def described(endpoint: Endpoint, *, oip: bool = False, at: str = "") -> bytes:
    """Return the document as JSON: the bytes that a server of this version answers."""
    return msgspec.json.encode(description(endpoint, oip=oip, at=at))
