"""The routes of the server as operations of OpenAPI: what goes in, what comes out, and why a request is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

from modelyard._kit.digest import short
from modelyard.serving.contract.schemas import Endpoint, ref

__all__ = ["HEADERS", "PARAMETERS", "paths", "responses"]

_JSON = "application/json"
_BYTES = "application/octet-stream"
_ARROW = "application/vnd.apache.arrow.stream"
# The header belongs to this type of body alone, which no parameter of OpenAPI can say.
_BEHIND = "JSON of as many bytes as the header `Inference-Header-Content-Length` says, then the bytes of the tensors."
_ID = {"type": "string", "pattern": "^[!-~]{1,128}$"}

# Statuses of a refusal, and when it comes.
_WHEN = {
    400: "The request cannot be read, or does not fit the model: shape, type, unknown or missing column.",
    401: "No token, or one that is not known.",
    403: "The role of the caller may not do this.",
    404: "No such model or version.",
    413: "The body is too large, or holds too many rows.",
    415: "The body is of a type, or compressed in a way, that is not taken.",
    422: "A guard of the endpoint refuses the rows or the answer.",
    429: "The server is busy, or the caller has asked too often; `Retry-After` says when to come back.",
    431: "The headers are too large.",
    500: "The server could not answer; its operator finds more under the id.",
    503: "The server takes no requests at the moment, or the endpoint is switched off.",
    504: "The time in which the caller wanted its answer was up before the model's turn came.",
}
_ANY = (400, 413, 415, 429, 431, 500, 503)
_NAMED = (401, 403)
HEADERS: dict[str, Any] = {
    "RequestId": {"description": "Id of the request: the caller's own, or one of the server.", "schema": _ID},
    "ModelVersion": {
        "description": "The version that answered: the first digits of its digest.",
        "schema": {"type": "string"},
    },
    "Warnings": {
        "description": "Where an answer is not plain, why: kinds of warnings, and `withheld` for a row held back.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "Authenticate": {"description": "How to say who asks.", "schema": {"const": "Bearer"}},
    "JsonLength": {
        "description": "Bytes of JSON before the bytes of the tensors.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
PARAMETERS: dict[str, Any] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "The caller's own id: it comes back, stands in the log, and names the rows in `POST /feedback`.",
        "schema": _ID,
    },
    "CanaryKey": {
        "name": "X-Canary-Key",
        "in": "header",
        "description": "One key always meets the same model while a challenger is on trial.",
        "schema": {"type": "string"},
    },
    "Timeout": {
        "name": "x-envoy-expected-rq-timeout-ms",
        "in": "header",
        "description": "Milliseconds that the caller waits: after that, the model does not run for it. 0: any number.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
    },
}


def responses() -> dict[str, Any]:
    """Return the refusals by name: `Refused400`, and as the open protocol wants them `ProtocolRefused400`."""
    found = {}
    for status, when in _WHEN.items():
        headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
        if status in (429, 503):
            headers["retry-after"] = {"$ref": "#/components/headers/RetryAfter"}
        if status == 401:
            headers["www-authenticate"] = {"$ref": "#/components/headers/Authenticate"}
        for prefix in ("", "Protocol"):
            content = {_JSON: {"schema": ref(f"{prefix}Refusal")}}
            found[f"{prefix}Refused{status}"] = {"description": when, "headers": headers, "content": content}
    return found


def paths(endpoint: Endpoint) -> dict[str, Any]:
    """Return every route that a client asks, and its operation; what this server always refuses is not among them."""
    return {**_predictions(endpoint), **_protocol(endpoint), **_operators(endpoint)}


def _predictions(endpoint: Endpoint) -> dict[str, Any]:
    row = endpoint.row
    rows = {
        _JSON: _content({"oneOf": [ref(name) for name in ("Rows", "Columns", "Row")]}, {"rows": [row]}),
        _ARROW: {"schema": {"description": "An Arrow IPC stream: the columns by name."}},
    }
    predict = _operation(
        "predict",
        "Ask the model for one prediction a row.",
        "Answer",
        body={"content": rows},
        refused=(422,),
        asks=True,
    )
    shown = "An Arrow IPC stream: `prediction`, and for a classifier a `probability.CLASS` each."
    predict["responses"]["200"]["content"][_ARROW] = {"schema": {"description": shown}}
    table = {
        _JSON: _content(ref("Invocation"), {"dataframe_records": [row]}),
        "text/csv": {"schema": {"type": "string", "description": "A line of names, then one a row."}},
    }
    outcome = {"oneOf": [ref("Outcome"), ref("Outcomes")]}
    truth = 0.5 if endpoint.regression else (endpoint.labels or endpoint.version.signature.problem.classes)[0]
    return {
        "/predict": {"post": predict},
        "/invocations": {
            "post": _operation(
                "invocations",
                "Ask with the bodies of MLflow's clients.",
                "Scored",
                body={"content": table},
                refused=(422,),
                asks=True,
            )
        },
        "/feedback": {
            "post": _operation(
                "feedback",
                "Join outcomes that became known later to requests of the caller, of an operator to any, by their ids.",
                "Joined",
                body={"content": {_JSON: _content(outcome, {"id": "my-request-1", "truth": truth})}},
            )
        },
        "/openapi.json": {"get": _operation("openapi", "Return this description.", "Anything")},
        "/ping": {"get": _operation("ping", "Say that requests are taken.", "Nothing", open_to_all=True)},
    }


def _protocol(endpoint: Endpoint) -> dict[str, Any]:
    ready = {"content": {_JSON: {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}}}
    found: dict[str, Any] = {
        "/v2": {"get": _of_protocol("server_metadata", "Return name and extensions.", "ServerMetadata")},
        "/v2/health/live": {"get": _of_protocol("server_live", "Say that the server runs.", "Live", open_to_all=True)},
        "/v2/health/ready": {
            "get": _of_protocol("server_ready", "Say that requests are taken.", "Ready", open_to_all=True)
        },
        "/v2/repository/index": {"post": _of_protocol("repository_index", "List the versions.", "Index", body=ready)},
    }
    for prefix, of in (("/v2/models/{model}", "model"), ("/v2/models/{model}/versions/{version}", "version")):
        named = [_named("model", [endpoint.name])]
        if of == "version":
            named.append(_named("version", [short(endpoint.version.digest), endpoint.version.digest]))
        operations = {
            "": _of_protocol(f"{of}_metadata", "Return the tensors of the model.", "ModelMetadata"),
            "/ready": _of_protocol(f"{of}_ready", "Say that the model takes requests.", "ModelReady"),
            "/config": _of_protocol(f"{of}_config", "Return the model's configuration.", "Anything"),
            "/stats": _of_protocol(f"{of}_stats", "Return what was answered; for operators.", "Anything"),
        }
        for path, operation in operations.items():
            found[prefix + path] = {"parameters": named, "get": operation}
        found[f"{prefix}/infer"] = {"parameters": named, "post": _infer(endpoint, f"{of}_infer")}
    return found


def _infer(endpoint: Endpoint, name: str) -> dict[str, Any]:
    content = {
        _JSON: _content(ref("InferRequest"), {"inputs": _tensors(endpoint)}),
        _BYTES: {"schema": {"description": _BEHIND}},
    }
    operation = _operation(
        name,
        "Ask the model with tensors.",
        "InferAnswer",
        body={"content": content, "required": True},
        refused=(422,),
        asks=True,
        protocol=True,
    )
    answered = operation["responses"]["200"]
    answered["headers"]["inference-header-content-length"] = {"$ref": "#/components/headers/JsonLength"}
    answered["content"][_BYTES] = {"schema": {"description": "JSON, then the bytes of the tensors."}}
    return operation


def _tensors(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return the example row as one tensor a column."""
    row = endpoint.row
    kinds = {feature.name: "FP64" if feature.type == "number" else "BYTES" for feature in _features(endpoint)}
    return [{"name": n, "datatype": kinds[n], "shape": [1], "data": [value]} for n, value in row.items()]


def _features(endpoint: Endpoint) -> Any:
    return endpoint.version.signature.features


def _operators(endpoint: Endpoint) -> dict[str, Any]:
    model = [_named("model", [endpoint.name])]
    stats = _of_protocol("stats_of_all", "Return what was answered; for operators.", "Anything")
    metrics = _operation("metrics", "Return what is counted, for Prometheus; for operators.", "Anything")
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    load = _of_protocol("model_load", "Load a model that was unloaded; for operators.", "Nothing")
    unload = _of_protocol("model_unload", "Unload a model until it is loaded again; for operators.", "Nothing")
    return {
        "/v2/models/stats": {"get": stats},
        "/v2/repository/models/{model}/load": {"parameters": model, "post": load},
        "/v2/repository/models/{model}/unload": {"parameters": model, "post": unload},
        "/metrics": {"get": metrics},
        "/stats": {"get": _operation("stats", "Return the server's counters; for operators.", "Anything")},
    }


def _operation(
    name: str,
    summary: str,
    answer: str,
    *,
    body: dict[str, Any] | None = None,
    refused: tuple[int, ...] = (),
    asks: bool = False,
    open_to_all: bool = False,
    protocol: bool = False,
) -> dict[str, Any]:
    """Return an operation.

    Args:
        name: Its id.
        summary: What it is for.
        answer: Name of the schema of its answer.
        body: What goes in, if anything does.
        refused: Statuses of refusals beside the usual ones.
        asks: Whether it asks the model, so that the answer names the version.
        open_to_all: Whether it needs no token.
        protocol: Whether refusals have the form of the open protocol.
    """
    parameters = [{"$ref": "#/components/parameters/RequestId"}]
    headers = {"x-request-id": {**HEADERS["RequestId"], "required": True}}
    if asks:
        parameters += [{"$ref": f"#/components/parameters/{name}"} for name in ("CanaryKey", "Timeout")]
        refused = (*refused, 504)
        headers["x-model-version"] = {"$ref": "#/components/headers/ModelVersion"}
        headers["x-warnings"] = {"$ref": "#/components/headers/Warnings"}
    usual = _ANY if open_to_all else (*_ANY, *_NAMED, 404)
    prefix = "Protocol" if protocol else ""
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "parameters": parameters}
    if open_to_all:
        operation["security"] = []
    if body is not None:
        operation["requestBody"] = {"required": asks or "Outcome" in str(body), **body}
    operation["responses"] = {
        "200": {
            "description": "The answer",
            "headers": headers,
            "content": {_JSON: {"schema": ref(answer)}},
        },
        **{
            str(status): {"$ref": f"#/components/responses/{prefix}Refused{status}"}
            for status in sorted((*usual, *refused))
        },
    }
    return operation


# An operation whose refusals have the form of the open protocol.
_of_protocol = partial(_operation, protocol=True)


def _content(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    return {"schema": schema, "example": example}


def _named(name: str, values: list[str]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"enum": values}}
