"""What an endpoint takes and answers as JSON Schema 2020-12, made of its model's signature and its guards."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from modelyard.inference import Bundle
from modelyard.inference.decode import Label
from modelyard.records import Feature, ModelVersion
from modelyard.serving.contract.usual import usual_row
from modelyard.serving.guards.policy import Guarded, OutputCheck
from modelyard.serving.limits import Limits
from modelyard.serving.parsed import WARNINGS

__all__ = ["Endpoint", "ref", "schemas"]

FLOAT32_MAX = 3.4028234663852886e38
FLOAT64_MAX = sys.float_info.max
# Categories of a column that are written out; what is beyond is known to the server alone.
_CATEGORIES = 1000
_IN_WORDS = 20
# A number as a text, for columns that are coerced.
_AS_TEXT = r"^[+-]?[0-9]{1,30}(\.[0-9]{1,30})?$"
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_ANYTHING = {"type": "object"}
_DATATYPES = ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is described: a version under a name, within limits.

    Attributes:
        name: Name of the endpoint.
        version: The version that answers.
        labels: The classes in the type they had in the training data.
        limits: Limits of the server, with its guards.
        row: A usual row, for the examples.
    """

    name: str
    version: ModelVersion
    labels: tuple[Label, ...]
    limits: Limits
    row: dict[str, Any]

    @classmethod
    def of(cls, bundle: Bundle, name: str, limits: Limits) -> Endpoint:
        """Describe a bundle."""
        return cls(name, bundle.version, tuple(bundle.labels), limits, usual_row(bundle.signature, bundle.profile))

    @property
    def guards(self) -> Guarded:
        """The guards; those that do nothing where none are declared."""
        return self.limits.policy.guards or Guarded()

    @property
    def regression(self) -> bool:
        """Whether it answers numbers."""
        return self.version.signature.problem.task == "regression"


def schemas(endpoint: Endpoint) -> dict[str, Any]:
    """Return the schemas of the document by name."""
    features = endpoint.version.signature.features
    names = [feature.name for feature in features]
    columns = {feature.name: _column(feature, endpoint.guards) for feature in features}
    lists = {name: {"type": "array", "items": column, "minItems": 1} for name, column in columns.items()}
    rows = {"type": "array", "minItems": 1, "maxItems": endpoint.limits.rows}
    in_order = {"type": "array", "prefixItems": list(columns.values()), "items": False, "minItems": len(names)}
    return {
        "Row": _object(columns, names),
        "Rows": _object({"rows": {**rows, "items": ref("Row")}}, ["rows"]),
        "Lists": _object(lists, names),
        "Columns": _object({"columns": ref("Lists")}, ["columns"]),
        "RowInOrder": in_order,
        **_answers(endpoint),
        **_mlflow(columns, lists, rows),
        **_protocol(endpoint),
        **_server(),
    }


def _column(feature: Feature, guards: Guarded) -> dict[str, Any]:
    """What a column takes, and beside it, in words and as `x-seen`, what was seen of it in training."""
    number = feature.type == "number"
    kinds = ["number" if number else "string"]
    schema: dict[str, Any] = {}
    if number:
        reject = guards.out_of_range == "reject"
        schema["minimum"] = feature.low if reject and feature.low is not None else -FLOAT32_MAX
        schema["maximum"] = feature.high if reject and feature.high is not None else FLOAT32_MAX
        if feature.source == "Boolean":
            kinds.append("boolean")
    if feature.name in guards.coerce:
        kinds += ["string"] if number else ["number", "boolean"]
        if number:
            schema["pattern"] = _AS_TEXT
    empty = feature.nullable and guards.missing != "reject"
    if not number and not empty:
        # An empty text is a missing value.
        schema["minLength"] = 1
    if empty:
        kinds.append("null")
    if not number and guards.unseen == "reject" and feature.categories:
        schema["enum"] = [*feature.categories, *(["", None] if empty else [])]
    seen = _seen(feature)
    if feature.nullable and not empty:
        # A guard refuses what the model itself takes.
        seen["x-seen"] = {**seen.get("x-seen", {}), "missing": True}
    return {"type": kinds if len(kinds) > 1 else kinds[0], **schema, **seen}


def _seen(feature: Feature) -> dict[str, Any]:
    words, seen = [], {}
    if feature.low is not None:
        words.append(f"from {feature.low:g}")
        seen["low"] = feature.low
    if feature.high is not None:
        words.append(f"up to {feature.high:g}")
        seen["high"] = feature.high
    if feature.categories:
        more = ", ..." if len(feature.categories) > _IN_WORDS else ""
        words.append(", ".join(feature.categories[:_IN_WORDS]) + more)
    if not words:
        return {}
    told: dict[str, Any] = {"description": f"Seen in training: {' '.join(words)}"}
    if feature.categories:
        return {**told, "x-seen": {"categories": list(feature.categories[:_CATEGORIES])}}
    return {**told, "x-seen": seen}


def _answers(endpoint: Endpoint) -> dict[str, Any]:
    warning = {"kind": {"enum": list(WARNINGS)}, "column": _TEXT, "rows": _COUNT, "message": _TEXT}
    answer = {
        "id": _TEXT,
        "model": _TEXT,
        "predictions": {"type": "array", "items": ref("Prediction")},
        "warnings": {"type": "array", "items": ref("Warning")},
    }
    refusal = _object({"code": _TEXT, "message": _TEXT, "id": _TEXT}, ["code", "message", "id"])
    return {
        "Value": _value(endpoint),
        "Prediction": _prediction(endpoint),
        "Warning": _object(warning, list(warning)),
        "Answer": _object(answer, ["id", "model", "predictions"]),
        "Refusal": _object({"error": refusal}, ["error"]),
        "Outcome": _object(
            {
                "id": {"type": "string", "minLength": 1, "maxLength": 200},
                "truth": _truth(endpoint),
            },
            ["id", "truth"],
        ),
        "Outcomes": {"type": "array", "items": ref("Outcome"), "minItems": 1, "maxItems": 10_000},
        "Joined": _object(
            {
                "id": _TEXT,
                "joined": _COUNT,
                "unknown": _COUNT,
                "unchecked": _COUNT,
                "unknown_ids": {"type": "array", "items": _TEXT},
                "replaced": _COUNT,
                "replaced_ids": {"type": "array", "items": _TEXT},
            },
            ["id", "joined", "unknown", "unchecked", "unknown_ids", "replaced", "replaced_ids"],
        ),
    }


def _truth(endpoint: Endpoint) -> dict[str, Any]:
    """What an outcome may be: what the model could have answered, also as its text."""
    if endpoint.regression:
        return {"type": ["number", "string"], "minimum": -FLOAT64_MAX, "maximum": FLOAT64_MAX, "pattern": _AS_TEXT}
    typed = [label for label in endpoint.labels if not isinstance(label, str)]
    return {"enum": [*typed, *_classes(endpoint)]}


def _prediction(endpoint: Endpoint) -> dict[str, Any]:
    """What is withheld by a guard has no value, or the fallback; a role may see no probabilities."""
    properties: dict[str, Any]
    if endpoint.regression:
        properties, required = {"value": ref("Value")}, ["value"]
    else:
        shares = {name: {"type": "number", "minimum": 0, "maximum": 1} for name in _classes(endpoint)}
        properties = {"label": ref("Value"), "probabilities": _object(shares, list(shares))}
        hidden = "label" in endpoint.limits.policy.access.show.values()
        required = ["label"] if hidden or _withheld(endpoint) else ["label", "probabilities"]
    if _withheld(endpoint):
        properties["withheld"] = {"type": "string", "enum": _withheld(endpoint)}
    return _object(properties, required)


def _value(endpoint: Endpoint) -> dict[str, Any]:
    """What is answered of one row: a number, or a class in the type it had in the training data."""
    guards = endpoint.guards
    abstains = (
        (guards.confidence is not None and guards.confidence.otherwise == "abstain")
        or (guards.within is not None and guards.within.do == "abstain")
        or any(check.do == "abstain" or _abstains_failing(check) for check in guards.checks)
    )
    if endpoint.regression:
        schema: dict[str, Any] = {"type": ["number", "null"] if abstains else "number"}
        if guards.within is not None and not guards.uses_fallback:
            bounds = {"minimum": guards.within.low, "maximum": guards.within.high}
            schema.update({key: bound for key, bound in bounds.items() if bound is not None})
        return schema
    labels = list(endpoint.labels or _classes(endpoint))
    return {"enum": [*labels, None] if abstains else labels}


def _withheld(endpoint: Endpoint) -> list[str]:
    """Return the names of the guards that may hold an answer back."""
    guards = endpoint.guards
    return [
        *(["outlier"] if guards.outlier is not None and guards.outlier.do == "quarantine" else []),
        *(["confidence"] if guards.confidence is not None else []),
        *(["within"] if guards.within is not None and guards.within.do != "clip" else []),
        *dict.fromkeys(check.name for check in guards.checks if check.do != "warn" or _abstains_failing(check)),
    ]


def _abstains_failing(check: OutputCheck) -> bool:
    """Whether a check that only warns holds answers back where it fails."""
    return check.do == "warn" and check.on_error == "abstain"


def _classes(endpoint: Endpoint) -> tuple[str, ...]:
    return endpoint.version.signature.problem.classes


def _mlflow(columns: dict[str, Any], lists: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """The bodies of MLflow's clients; of `inputs` and `instances` each way that they write a table."""
    names = list(columns)
    by_name = {**rows, "items": ref("Row")}
    by_order = {**rows, "items": ref("RowInOrder")}
    # A value alone is a list of one.
    loose = _object({name: {"anyOf": [columns[name], lists[name]]} for name in names}, names)
    # pandas may write more of a frame than a model takes.
    split = {**_object({"columns": {"const": names}, "data": by_order}, ["data"]), "additionalProperties": True}
    bodies = {
        "dataframe_split": split,
        "dataframe_records": by_name,
        "instances": {"anyOf": [by_name, by_order]},
        "inputs": {"anyOf": [loose, by_name, by_order]},
    }
    return {
        "Invocation": {"oneOf": [_object({key: schema}, [key]) for key, schema in bodies.items()]},
        "Scored": _object({"predictions": {"type": "array", "items": ref("Value")}}, ["predictions"]),
    }


def _protocol(endpoint: Endpoint) -> dict[str, Any]:
    """The objects of the Open Inference Protocol: https://github.com/kserve/open-inference-protocol, version 2."""
    signature = endpoint.version.signature
    kinds = (("numeric", signature.numbers), ("categorical", signature.categories))
    taken = [*(kind for kind, features in kinds if features), *(f.name for f in signature.features)]
    given = ["prediction"] if endpoint.regression else ["probabilities", "label"]
    shape = {"type": "array", "items": {"type": "integer"}}
    # Rows, and in a tensor of all columns how many those are.
    size = {"type": "integer", "minimum": 0, "maximum": max(endpoint.limits.rows, len(signature.features))}
    tensor = {"name": _TEXT, "datatype": _TEXT, "shape": shape}
    known = {"numeric": _TEXT, "categorical": _TEXT, "classes": _TEXT}
    return {
        "ProtocolRefusal": _object({"error": _TEXT, "code": _TEXT, "id": _TEXT}, ["error", "code", "id"]),
        "ServerMetadata": _object(
            {"name": _TEXT, "version": _TEXT, "extensions": {"type": "array", "items": _TEXT}},
            ["name", "version", "extensions"],
        ),
        "Tensor": _object(tensor, list(tensor)),
        "ModelMetadata": _object(
            {
                "name": _TEXT,
                "versions": {"type": "array", "items": _TEXT},
                "platform": _TEXT,
                "inputs": {"type": "array", "items": ref("Tensor")},
                "outputs": {"type": "array", "items": ref("Tensor")},
                "parameters": _object({key: {"type": "array", "items": one} for key, one in known.items()}, []),
            },
            ["name", "versions", "platform", "inputs", "outputs"],
        ),
        "InferInput": {
            "type": "object",
            "properties": {
                "name": {"enum": taken},
                "datatype": {"enum": [*_DATATYPES, "BYTES"]},
                "shape": {"type": "array", "items": size, "minItems": 1, "maxItems": 2},
                "data": {"type": "array", "description": "Flat, or a list a row; null is a missing value."},
                "parameters": _ANYTHING,
            },
            "required": ["name", "datatype", "shape"],
        },
        "InferRequest": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "pattern": "^[!-~]{0,128}$"},
                "inputs": {"type": "array", "items": ref("InferInput"), "minItems": 1},
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"name": {"enum": given}, "parameters": _ANYTHING},
                        "required": ["name"],
                    },
                },
                "parameters": _ANYTHING,
            },
            "required": ["inputs"],
        },
        "InferOutput": _object(
            {
                "name": {"enum": given},
                "datatype": {"enum": ["FP32", "BYTES"]},
                "shape": {"type": "array", "items": _COUNT},
                "data": {"type": "array", "items": {"type": ["number", "string"]}},
                "parameters": _object({"binary_data_size": _COUNT}, []),
            },
            ["name", "datatype", "shape"],
        ),
        "InferAnswer": _object(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "outputs": {"type": "array", "items": ref("InferOutput")},
                "parameters": _object({"warnings": {"type": "array", "items": _TEXT}, "withheld": _TEXT}, []),
            },
            ["model_name", "model_version", "id", "outputs"],
        ),
        "Index": {
            "type": "array",
            "items": _object(
                {"name": _TEXT, "version": _TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": _TEXT},
                ["name", "version", "state", "reason"],
            ),
        },
    }


def _server() -> dict[str, Any]:
    yes = {"const": True}
    return {
        "Live": _object({"live": yes}, ["live"]),
        "Ready": _object({"ready": yes}, ["ready"]),
        "ModelReady": _object({"name": _TEXT, "ready": yes}, ["name", "ready"]),
        "Nothing": _object({}, []),
        "Anything": _ANYTHING,
    }


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def ref(name: str) -> dict[str, str]:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
