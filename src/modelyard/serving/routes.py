"""The routes: a path and method, what a caller must be allowed to do, and who answers.

Each protocol has a module with its handlers; here they become one table, which the tests walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from modelyard.security.roles import Action
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models, all_ready, not_ready
from modelyard.serving.observability.metrics import metrics, stats
from modelyard.serving.protocols import mlflow, oip, repository
from modelyard.serving.protocols.feedback import feedback
from modelyard.serving.protocols.openapi import openapi
from modelyard.serving.protocols.predict import predict

__all__ = ["ROUTES", "Found", "Handler", "Route", "match"]

# Answers an exchange: with the body of a 200, or by `exchange.reply` later and none now.
Handler = Callable[[Models, Exchange], bytes | None]


@dataclass(frozen=True, slots=True)
class Route:
    """A path and method, what a caller must be allowed to do, and who answers; no action: open to all.

    Attributes:
        method: In capital letters.
        path: Path; `{model}` and `{version}` stand for one part of it.
        action: What a caller must be allowed to do.
        handler: Who answers.
        wide: It asks about the server and not about one endpoint: `Head.seen` says about which of them.
        joins: Requests whose bodies alone say what is asked for may be answered together.
    """

    method: str
    path: str
    action: Action | None
    handler: Handler
    wide: bool = False
    joins: bool = False

    @property
    def by_message(self) -> bool:
        """Whether the model is named in the message, and not in the path."""
        return False

    @property
    def asks(self) -> bool:
        """Whether a model is asked: outcomes of earlier answers are none of its business."""
        return self.action == "infer" and self.handler is not feedback


@dataclass(frozen=True, slots=True)
class Found:
    """Routes that a path leads to: method -> route, and the model and version that it names."""

    routes: dict[bytes, Route]
    model: str = ""
    version: str = ""


def _live(models: Models, exchange: Exchange) -> bytes:
    return b'{"live":true}'


def _ready(models: Models, exchange: Exchange) -> bytes:
    if not all_ready(exchange.head.seen):
        raise not_ready()
    return b'{"ready":true}'


def _server(models: Models, exchange: Exchange) -> bytes:
    return oip.server_metadata()


def _model(models: Models, exchange: Exchange) -> bytes:
    return oip.model_metadata(models.find(exchange.model, exchange.version), exchange.role)


def _model_ready(models: Models, exchange: Exchange) -> bytes:
    service = models.find(exchange.model, exchange.version)
    models.check_ready()
    return msgspec.json.encode({"name": service.endpoint, "ready": True})


def _stats(models: Models, exchange: Exchange) -> bytes:
    return msgspec.json.encode(stats(exchange.head.seen))


# What the protocol has and this server does not: method -> paths.
_UNSUPPORTED = tuple(
    Route(method, path, "operate", repository.unsupported, wide="{model}" not in path)
    for method, path in (
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/models/{model}/trace/setting"),
        ("POST", "/v2/models/{model}/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
        *(
            (method, f"/v2/{kind}sharedmemory{path}")
            for kind in ("system", "cuda")
            for method, path in (
                ("GET", "/status"),
                ("POST", "/unregister"),
                ("GET", "/region/{region}/status"),
                ("POST", "/region/{region}/register"),
                ("POST", "/region/{region}/unregister"),
            )
        ),
    )
)

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/health/live", None, _live),
    Route("GET", "/v2/health/ready", None, _ready),
    Route("GET", "/v2", "read", _server, wide=True),
    Route("GET", "/v2/models/{model}", "read", _model),
    Route("GET", "/v2/models/{model}/ready", "read", _model_ready),
    Route("POST", "/v2/models/{model}/infer", "infer", oip.infer),
    Route("GET", "/v2/models/{model}/versions/{version}", "read", _model),
    Route("GET", "/v2/models/{model}/versions/{version}/ready", "read", _model_ready),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", "infer", oip.infer),
    Route("POST", "/v2/repository/index", "read", repository.index, wide=True),
    Route("POST", "/v2/repository/models/{model}/load", "operate", repository.load),
    Route("POST", "/v2/repository/models/{model}/unload", "operate", repository.unload),
    Route("GET", "/v2/models/{model}/config", "read", repository.config),
    Route("GET", "/v2/models/{model}/versions/{version}/config", "read", repository.config),
    # After the route with a name in the same place: the word wins.
    Route("GET", "/v2/models/stats", "operate", repository.statistics, wide=True),
    Route("GET", "/v2/models/{model}/stats", "operate", repository.statistics),
    Route("GET", "/v2/models/{model}/versions/{version}/stats", "operate", repository.statistics),
    *_UNSUPPORTED,
    Route("POST", "/predict", "infer", predict, joins=True),
    Route("POST", "/invocations", "infer", mlflow.invocations),
    Route("GET", "/ping", None, mlflow.ping),
    Route("GET", "/openapi.json", "read", openapi),
    Route("POST", "/feedback", "infer", feedback),
    Route("GET", "/metrics", "operate", metrics, wide=True),
    Route("GET", "/stats", "operate", _stats, wide=True),
)


def _by_shape() -> dict[int, list[tuple[list[str], Route]]]:
    found: dict[int, list[tuple[list[str], Route]]] = {}
    for route in ROUTES:
        parts = route.path.split("/")
        found.setdefault(len(parts), []).append((parts, route))
    return found


_SHAPES = _by_shape()


def match(path: bytes) -> Found | None:
    """Return the routes that a path leads to, or none; nothing in it is decoded, since no name needs that."""
    try:
        given = path.decode("ascii").split("/")
    except UnicodeDecodeError:
        return None
    if given == ["", "v2", ""]:
        given.pop()
    routes: dict[bytes, Route] = {}
    names: dict[str, str] = {}
    for parts, route in _SHAPES.get(len(given), ()):
        if all(want == have or (want[:1] == "{" and have) for want, have in zip(parts, given, strict=True)):
            routes[route.method.encode()] = route
            names = {want: have for want, have in zip(parts, given, strict=True) if want[:1] == "{"}
    return Found(routes, names.get("{model}", ""), names.get("{version}", "")) if routes else None
