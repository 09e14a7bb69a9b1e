"""The description of a model's endpoint in OpenAPI 3.1, made of its signature."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.records import Feature
from modelyard.serving.connection import Exchange
from modelyard.serving.models import Models
from modelyard.serving.service import Service

__all__ = ["description", "openapi"]


def openapi(models: Models, exchange: Exchange) -> bytes:
    """Return the description of what answers where no name is given."""
    return msgspec.json.encode(description(models.default))


def description(service: Service) -> dict[str, Any]:
    """Return an endpoint's description: `POST /predict` with the model's columns by name and type.

    Ranges and categories seen in training are told in words: what lies outside is answered, with a warning.
    """
    refused = {"description": "Refused", "content": {"application/json": {"schema": _ref("Refusal")}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": service.endpoint, "version": service.version.digest[:12]},
        "security": [{"token": []}],
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Ask the model for one prediction a row.",
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {
                                "schema": {"oneOf": [_ref("Rows"), _ref("Columns"), _ref("Row")]},
                            }
                        },
                    },
                    "responses": {
                        "200": {
                            "description": "One prediction a row, in order",
                            "content": {"application/json": {"schema": _ref("Answer")}},
                        },
                        **{str(status): refused for status in (400, 401, 403, 413, 415, 422, 429, 503)},
                    },
                }
            }
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(service),
        },
    }


def _schemas(service: Service) -> dict[str, Any]:
    features = service.version.signature.features
    names = [feature.name for feature in features]
    rows = {"type": "array", "items": _ref("Row"), "minItems": 1, "maxItems": service.limits.rows}
    columns = {f.name: {"type": "array", "items": _column(f), "minItems": 1} for f in features}
    text = {"type": "string"}
    refusal = _object({"code": text, "message": text, "id": text}, ["code", "message", "id"])
    return {
        "Row": _object({f.name: _column(f) for f in features}, names),
        "Rows": _object({"rows": rows}, ["rows"]),
        "Columns": _object({"columns": _object(columns, names)}, ["columns"]),
        "Prediction": _prediction(service),
        "Warning": _object(
            {"column": text, "rows": {"type": "integer"}, "message": text}, ["column", "rows", "message"]
        ),
        "Answer": _object(
            {
                "id": text,
                "model": text,
                "predictions": {"type": "array", "items": _ref("Prediction")},
                "warnings": {"type": "array", "items": _ref("Warning")},
            },
            ["id", "model", "predictions"],
        ),
        "Refusal": _object({"error": refusal}, ["error"]),
    }


def _column(feature: Feature) -> dict[str, Any]:
    kind = "number" if feature.type == "number" else "string"
    schema: dict[str, Any] = {"type": [kind, "null"] if feature.nullable else kind}
    seen = []
    if feature.low is not None:
        seen.append(f"from {feature.low:g}")
    if feature.high is not None:
        seen.append(f"up to {feature.high:g}")
    if feature.categories:
        seen.append(", ".join(feature.categories[:20]) + (", ..." if len(feature.categories) > 20 else ""))
    if seen:
        schema["description"] = f"Seen in training: {' '.join(seen)}"
    return schema


def _prediction(service: Service) -> dict[str, Any]:
    """What is withheld by a guard has no value; a role may see no probabilities."""
    if service.problem.task == "regression":
        return _object({"value": {"type": ["number", "null"]}, "withheld": {"type": "string"}}, ["value"])
    shares = {name: {"type": "number", "minimum": 0, "maximum": 1} for name in service.problem.classes}
    label = {"type": ["string", "number", "boolean", "null"]}
    return _object(
        {"label": label, "probabilities": _object(shares, list(shares)), "withheld": {"type": "string"}}, ["label"]
    )


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
