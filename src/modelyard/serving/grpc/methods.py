"""The methods: a path, what a caller must be allowed to do, and who answers; one table, which the tests walk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.infer import infer, wrap
from modelyard.serving.grpc.messages import read, write
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models, all_ready
from modelyard.serving.protocols import oip, repository
from modelyard.serving.routes import Route

__all__ = ["METHODS", "SERVICE", "Method", "find"]

_NOT_FOUND = 404
SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True)
class Method(Route):
    """A method of the service; it is a route whose path is that of gRPC.

    Attributes:
        streams: It takes and gives many messages.
        wrap: Makes what goes back for one of many: of an answer, or of what was wrong, and the id of the request.
    """

    streams: bool = False
    wrap: Callable[[bytes, str, str], bytes] = wrap

    @property
    def by_message(self) -> bool:
        """Whether the model is named in the message: here it always is, where one is."""
        return True


def _live(models: Models, call: Exchange) -> bytes:
    return write("ServerLiveResponse", {"live": True})


def _ready(models: Models, call: Exchange) -> bytes:
    return write("ServerReadyResponse", {"ready": all_ready(call.head.seen)})


def _model_ready(models: Models, call: Exchange) -> bytes:
    request = read("ModelReadyRequest", call.body)
    # Its clients take an error for a failure, so a model that is not here is one that is not ready, as in Triton.
    try:
        models = _enter(call, request.name)
        models.find(request.name, request.version)
    except HttpError as error:
        if error.status != _NOT_FOUND:
            raise
        return write("ModelReadyResponse", {"ready": False})
    return write("ModelReadyResponse", {"ready": models.ready})


def _server(models: Models, call: Exchange) -> bytes:
    return write("ServerMetadataResponse", oip.server())


def _model(models: Models, call: Exchange) -> bytes:
    return write("ModelMetadataResponse", oip.model(_find(models, call, "ModelMetadataRequest"), call.role))


def _config(models: Models, call: Exchange) -> bytes:
    service = _find(models, call, "ModelConfigRequest")
    return write("ModelConfigResponse", {"config": repository.config_of(service, call.role)})


def _statistics(models: Models, call: Exchange) -> bytes:
    request = read("ModelStatisticsRequest", call.body)
    seen = (_enter(call, request.name),) if request.name else call.head.seen
    return write("ModelStatisticsResponse", repository.statistics_of(seen, request.name, request.version))


def _index(models: Models, call: Exchange) -> bytes:
    only_ready = read("RepositoryIndexRequest", call.body).ready
    return write("RepositoryIndexResponse", {"models": repository.index_of(call.head.seen, only_ready=only_ready)})


def _load(models: Models, call: Exchange) -> bytes | None:
    request = read("RepositoryModelLoadRequest", call.body)
    models, answer = _enter(call, request.model_name), write("RepositoryModelLoadResponse", {})
    return repository.settle(models, call, answer, loaded=True, brings=bool(request.parameters))


def _unload(models: Models, call: Exchange) -> bytes | None:
    request = read("RepositoryModelUnloadRequest", call.body)
    models, answer = _enter(call, request.model_name), write("RepositoryModelUnloadResponse", {})
    return repository.settle(models, call, answer, loaded=False)


def _enter(call: Any, name: str) -> Models:
    """Return the models of the endpoint that a message names."""
    models: Models = call.link.answers.enter(call, name)
    return models


def _find(models: Models, call: Exchange, name: str) -> Any:
    """Return the model that a request names."""
    request = read(name, call.body)
    service = _enter(call, request.name).find(request.name, request.version)
    call.head.model, call.head.version = request.name, request.version
    return service


_KINDS: dict[str, tuple[Any, Any]] = {
    "ServerLive": (None, _live),
    "ServerReady": (None, _ready),
    "ServerMetadata": ("read", _server),
    "ModelReady": ("read", _model_ready),
    "ModelMetadata": ("read", _model),
    "ModelConfig": ("read", _config),
    "ModelInfer": ("infer", infer),
    "ModelStreamInfer": ("infer", infer),
    "RepositoryIndex": ("read", _index),
    "RepositoryModelLoad": ("operate", _load),
    "RepositoryModelUnload": ("operate", _unload),
    "ModelStatistics": ("operate", _statistics),
    # What the protocol has and this server does not.
    "TraceSetting": ("operate", repository.unsupported),
    "LogSettings": ("operate", repository.unsupported),
    **{
        f"{kind}SharedMemory{do}": ("operate", repository.unsupported)
        for kind in ("System", "Cuda")
        for do in ("Status", "Register", "Unregister")
    },
}

METHODS: tuple[Method, ...] = tuple(
    Method("POST", f"/{SERVICE}/{name}", action, handler, streams=name == "ModelStreamInfer")
    for name, (action, handler) in _KINDS.items()
)
_BY_PATH = {method.path.encode(): method for method in METHODS}


def find(path: bytes) -> Method | None:
    """Return the method of a path, if there is one."""
    return _BY_PATH.get(path)
