"""What Triton's clients ask beside inference: which models there are, how they are made, what they have done.

A model comes and goes with its alias in the ledger, never by a request: nobody can hand this server a model over HTTP.
What of the protocol is not there says so with the protocol's own form of an error.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.serving.errors import HttpError, bad
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models
from modelyard.serving.protocols.oip import names_of, outputs_of, tensors_of, version_of
from modelyard.serving.service import Service
from modelyard.serving.values import decode

__all__ = [
    "check_load",
    "config",
    "config_of",
    "index",
    "index_of",
    "load",
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
    return _encode(index_of(models, only_ready=only_ready))


def index_of(models: Models, *, only_ready: bool) -> list[dict[str, Any]]:
    """Return the same as plain data."""
    return [
        {
            "name": service.endpoint,
            "version": version_of(service),
            "state": "READY" if service.ready else "UNAVAILABLE",
            "reason": "" if service.ready else "it takes no requests at the moment",
        }
        for service in models
        if service.ready or not only_ready
    ]


def load(models: Models, exchange: Exchange) -> bytes:
    """Say that a model is loaded, if it is.

    Raises:
        HttpError: There is none of this name (404), or the request brings settings or files (400).
    """
    check_load(models, exchange.model, bool(_object(exchange.body).get("parameters")))
    return b"{}"


def check_load(models: Models, name: str, brings: bool) -> None:
    """Refuse to load what is not loaded already.

    Raises:
        HttpError: There is no model of this name (404), or the request brings settings or files (400).
    """
    models.find(name)
    if brings:
        raise bad("not-supported", "settings and files of a model are not taken from a request")


def unload(models: Models, exchange: Exchange) -> bytes:
    """Refuse: what is served follows the alias.

    Raises:
        HttpError: Always.
    """
    raise bad("not-supported", "a model is not unloaded by a request; move its alias, or switch the endpoint off")


def unsupported(models: Models, exchange: Exchange) -> bytes:
    """Refuse what this server does not have.

    Raises:
        HttpError: Always.
    """
    raise bad("not-supported", "shared memory, traces and log settings are not offered here")


def config(models: Models, exchange: Exchange) -> bytes:
    """Return the tensors of a model, the names of their columns, and how many rows a request may hold."""
    return _encode(config_of(models.find(exchange.model, exchange.version)))


def config_of(service: Service) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "name": service.endpoint,
        "platform": service.version.format,
        "max_batch_size": service.limits.rows,
        "input": [_tensor(one) for one in tensors_of(service)],
        "output": [_tensor(one) for one in outputs_of(service)],
        # A parameter is a text; over gRPC the metadata of a model have no place for names.
        "parameters": {key: {"string_value": _encode(names).decode()} for key, names in names_of(service).items()},
    }


def statistics(models: Models, exchange: Exchange) -> bytes:
    """Return what has been answered: by one version, by all of a model, or by all models."""
    return _encode(statistics_of(models, exchange.model, exchange.version))


def statistics_of(models: Models, name: str, version: str) -> dict[str, Any]:
    """Return the same as plain data.

    Raises:
        HttpError: There is no such model (404).
    """
    if name:
        found = [models.find(name, version)] if version else [one for one in models if one.endpoint == name]
    else:
        found = list(models)
    if not found:
        models.find(name)
    return {"model_stats": [_statistic(models, service) for service in found]}


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
