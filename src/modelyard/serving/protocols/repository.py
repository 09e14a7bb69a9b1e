"""What Triton's clients ask beside inference: which models there are, how they are made, what they have done.

A version comes with its alias in the ledger, never by a request: nobody can hand this server a model over HTTP. A
request can only have the endpoint unloaded, and loaded again.
What of the protocol is not there says so with the protocol's own form of an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modelyard.serving.errors import HttpError, bad
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models, not_here
from modelyard.serving.protocols.oip import names_of, seen_by, tensors_of, version_of
from modelyard.serving.service import Service
from modelyard.serving.values import decode

__all__ = [
    "config",
    "config_of",
    "index",
    "index_of",
    "load",
    "settle",
    "statistics",
    "statistics_of",
    "unload",
    "unsupported",
]

_encode = msgspec.json.Encoder().encode
_TYPES = {"FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}


def index(models: Models, exchange: Exchange) -> bytes:
    """Return every version that is loaded; `{"ready": true}` leaves out those that take no requests.

    Raises:
        HttpError: The body is no such object.
    """
    only_ready = _object(exchange.body).get("ready", False)
    if type(only_ready) is not bool:
        raise bad("body-shape", "`ready` is true or false")
    return _encode(index_of(exchange.head.seen, only_ready=only_ready))


def index_of(seen: Sequence[Models], *, only_ready: bool) -> list[dict[str, Any]]:
    """Return the same as plain data."""
    return [
        {
            "name": service.endpoint,
            "version": version_of(service),
            "state": "READY" if service.ready else "UNAVAILABLE",
            "reason": "" if service.ready else "it takes no requests at the moment",
        }
        for models in seen
        # What is on its way out after an unload answers what it took, and takes nothing.
        if models.loaded
        for service in models
        if service.ready or not only_ready
    ] + [
        {"name": models.name, "version": "", "state": "UNAVAILABLE", "reason": "unloaded"}
        for models in seen
        if not models.loaded and not only_ready
    ]


def load(models: Models, exchange: Exchange) -> bytes | None:
    """Load a model that was unloaded, as its alias points now.

    Raises:
        HttpError: There is none of this name (404), or the request brings settings or files (400).
    """
    brings = bool(_object(exchange.body).get("parameters"))
    return settle(models, exchange, b"{}", loaded=True, brings=brings)


def unload(models: Models, exchange: Exchange) -> bytes | None:
    """Unload a model: what is under way is answered, and its memory given back.

    Raises:
        HttpError: The server follows no alias, by which it could be loaded again (400).
    """
    _object(exchange.body)
    return settle(models, exchange, b"{}", loaded=False)


def settle(models: Models, exchange: Exchange, answer: bytes, *, loaded: bool, brings: bool = False) -> bytes | None:
    """Have a model loaded or unloaded; return the answer if it is for good, else it comes later.

    Args:
        models: The model.
        exchange: The request.
        answer: What is answered then.
        loaded: What is wanted.
        brings: The request brings settings or files.

    Raises:
        HttpError: It brings such (400), or the server follows no alias (400).
    """
    if brings:
        raise bad("not-supported", "settings and files of a model are not taken from a request")
    if models.loading is not None:
        # What it is here another process may have been asked to change a moment ago: the ledger knows.
        models.loading.ask(exchange, answer, loaded=loaded)
        return None
    if not loaded:
        raise bad("not-supported", "this server was given one bundle to serve to the end")
    return answer


def unsupported(models: Models, exchange: Exchange) -> bytes:
    """Refuse what this server does not have.

    Raises:
        HttpError: Always.
    """
    raise bad("not-supported", "shared memory, traces and log settings are not offered here")


def config(models: Models, exchange: Exchange) -> bytes:
    """Return the tensors of a model, the names of their columns, and how many rows a request may hold."""
    return _encode(config_of(models.find(exchange.model, exchange.version), exchange.role))


def config_of(service: Service, role: str) -> dict[str, Any]:
    """Return the same for a caller of a role, as plain data."""
    return {
        "name": service.endpoint,
        "platform": service.version.format,
        "max_batch_size": service.limits.rows,
        "input": [_tensor(one) for one in tensors_of(service)],
        "output": [_tensor(one) for one in seen_by(service, role)],
        # A parameter is a text; over gRPC the metadata of a model have no place for names.
        "parameters": {key: {"string_value": _encode(names).decode()} for key, names in names_of(service).items()},
    }


def statistics(models: Models, exchange: Exchange) -> bytes:
    """Return what has been answered: by one version, by all of a model, or by all models."""
    return _encode(statistics_of(exchange.head.seen, exchange.model, exchange.version))


def statistics_of(seen: Sequence[Models], name: str, version: str) -> dict[str, Any]:
    """Return the same as plain data.

    Args:
        seen: Of which endpoints.
        name: Of which model of them; all by default.
        version: Which version of it; all by default.

    Raises:
        HttpError: There is no such model (404).
    """
    found = [(models, one) for models in seen for one in models if name in ("", one.endpoint)]
    if version:
        found = [(models, models.find(name, version)) for models in seen]
    if name and not found:
        raise not_here()
    return {"model_stats": [_statistic(models, service) for models, service in found]}


def _statistic(models: Models, service: Service) -> dict[str, Any]:
    """Return what is known of one version; what is not measured (waiting, reading, writing) is not there."""
    counters, version, timed = service.stats(), version_of(service), service.batcher.timed
    seconds = sum(paths.seconds for paths in service.tally.by_path().values())
    return {
        "name": service.endpoint,
        "version": version,
        **({"last_inference": round(service.last * 1e3)} if service.last else {}),
        "inference_count": counters["rows"],
        "execution_count": counters["runs"],
        "inference_stats": {
            "success": _duration(counters["answered"], seconds),
            # How long they took is not kept.
            "fail": {"count": models.metrics.failed(service.endpoint, version)},
            "compute_infer": _duration(timed.requests, timed.seconds),
        },
        "batch_stats": [
            {"batch_size": rows, "compute_infer": _duration(*some)} for rows, some in sorted(timed.sizes.items())
        ],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}


def _tensor(one: dict[str, Any]) -> dict[str, Any]:
    """Return a tensor in the words of a config: without the dimension of the rows."""
    return {"name": one["name"], "data_type": _TYPES[one["datatype"]], "dims": one["shape"][1:] or [1]}


def _object(body: bytes) -> dict[str, Any]:
    data = decode(body) if body else {}
    if not isinstance(data, dict):
        raise HttpError(400, "body-shape", "send an object, or nothing")
    return data
