"""Which route, who asks, may they, and what comes back.

Whatever is not a health route needs a token, also a route that does not exist: a stranger learns nothing. The
order is token, route, role, and only then the body. Handlers are plain functions: they answer on the spot, or have the
model's answer call them back; nothing waits in a task.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import httptools
import msgspec

from modelyard._kit.ids import new_id
from modelyard.security.roles import Action, allowed
from modelyard.security.tokens import Caller, TokenBook
from modelyard.serving import protocol
from modelyard.serving.connection import Exchange, Heads, fail, say
from modelyard.serving.errors import HttpError, check_id
from modelyard.serving.limits import Rate
from modelyard.serving.predict import predict
from modelyard.serving.service import Service

__all__ = ["ROUTES", "App", "Handler", "Route", "paths_of"]

# Who asks for what is open to all.
_NOBODY = Caller("", "")

# Answers an exchange: with the body of a 200, or by `exchange.reply` later and none now.
Handler = Callable[[Service, Exchange], bytes | None]


def _live(service: Service, exchange: Exchange) -> bytes:
    return b'{"live":true}'


def _ready(service: Service, exchange: Exchange) -> bytes:
    if not service.ready:
        raise HttpError(503, "not-ready", "the server does not take requests at the moment")
    return b'{"ready":true}'


def _server(service: Service, exchange: Exchange) -> bytes:
    return protocol.server_metadata()


def _model(service: Service, exchange: Exchange) -> bytes:
    return protocol.model_metadata(service)


def _model_ready(service: Service, exchange: Exchange) -> bytes:
    _ready(service, exchange)
    return msgspec.json.encode({"name": service.endpoint, "ready": True})


def _stats(service: Service, exchange: Exchange) -> bytes:
    return msgspec.json.encode(service.stats())


@dataclass(frozen=True, slots=True)
class Route:
    """A path and method, what a caller must be allowed to do, and who answers; no action: open to all."""

    method: str
    path: str
    action: Action | None
    handler: Handler


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/health/live", None, _live),
    Route("GET", "/v2/health/ready", None, _ready),
    Route("GET", "/v2", "read", _server),
    Route("GET", "/v2/models/{model}", "read", _model),
    Route("GET", "/v2/models/{model}/ready", "read", _model_ready),
    Route("POST", "/v2/models/{model}/infer", "infer", protocol.infer),
    Route("GET", "/v2/models/{model}/versions/{version}", "read", _model),
    Route("GET", "/v2/models/{model}/versions/{version}/ready", "read", _model_ready),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", "infer", protocol.infer),
    Route("POST", "/predict", "infer", predict),
    Route("GET", "/stats", "operate", _stats),
)


def paths_of(service: Service) -> Iterator[tuple[str, Route]]:
    """Yield each path that this service answers, with its route."""
    digest = service.version.digest
    for route in ROUTES:
        for version in (digest[:12], digest) if "{version}" in route.path else ("",):
            path = route.path.replace("{model}", service.endpoint).replace("{version}", version)
            yield path, route
            if path == "/v2":
                yield "/v2/", route


class App:
    """Answers the exchanges of every connection.

    Args:
        service: The model at work.
        tokens: Who may ask.
        roles: Roles that may ask for predictions, of those that may at all; none named means all of them.

    Attributes:
        limits: Limits of the server.
        connections: Connections that are open.
        heads: Heads of requests that were admitted within this half of a second.
        draining: Nothing new is taken, and each connection closes after its answer.
    """

    def __init__(self, service: Service, tokens: TokenBook, roles: Collection[str] = ()) -> None:
        self.limits = service.limits
        self.connections: set[Any] = set()
        self._service = service
        self._tokens = tokens
        self._roles = roles
        self._rate = Rate(service.limits.per_minute)
        self._routes: dict[bytes, dict[bytes, Route]] = {}
        for path, route in paths_of(service):
            self._routes.setdefault(path.encode(), {})[route.method.encode()] = route
        # Ids of this process: unique without a random number a request.
        self._prefix = new_id("req")
        self._count = itertools.count(1)
        self._told = ""
        self.heads = Heads()

    @property
    def draining(self) -> bool:
        """Whether each connection closes after its answer."""
        return self._service.draining

    def refused(self, code: str) -> None:
        """Count a refusal."""
        self._service.refused[code] += 1

    def admit(self, exchange: Exchange) -> None:
        """Find the route, if the caller may take it.

        Raises:
            HttpError: There is none, or the caller may not take it.
        """
        headers = exchange.headers
        exchange.id = f"{self._prefix}-{next(self._count):x}"
        if b"x-request-id" in headers:
            exchange.id = check_id(headers[b"x-request-id"].decode("latin-1"))
        route, caller = self._decide(exchange, exchange.method, exchange.target, headers.get(b"authorization", b""))
        exchange.route = route
        exchange.caller, exchange.role = caller.name, caller.role
        if route.action != "infer":
            return
        self._take(caller.name)
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() not in (b"", b"identity"):
            raise HttpError(415, "body-encoding", "a body has to come as it is, without `Content-Encoding`")

    def admit_again(self, exchange: Exchange) -> None:
        """Admit a request whose head was admitted a moment ago: only how often the caller asks is looked at anew.

        Raises:
            HttpError: The caller has asked too often.
        """
        exchange.id = f"{self._prefix}-{next(self._count):x}"
        if self.limits.per_minute and exchange.route.action == "infer":
            self._take(exchange.caller)

    def _take(self, caller: str) -> None:
        if self.limits.per_minute and (wait := self._rate.take(caller)):
            after = ((b"retry-after", b"%d" % (int(wait) + 1)),)
            raise HttpError(429, "rate-exceeded", "this token has asked too often in this minute", headers=after)

    def _decide(self, exchange: Exchange, method: bytes, target: bytes, given: bytes) -> tuple[Route, Caller]:
        """Return route and caller, if the caller may take it."""
        methods = self._routes.get(target) or self._routes.get(_path(target))
        route = methods.get(b"GET" if method == b"HEAD" else method) if methods else None
        if route is not None and route.action is None:
            return route, _NOBODY
        caller = self._caller(given)
        if route is None:
            raise _no_route(exchange, methods)
        narrowed = route.action == "infer" and self._roles and caller.role not in self._roles
        if not allowed(caller.role, route.action or "") or narrowed:
            raise HttpError(403, "role-denied", f"the role `{caller.role}` may not do this")
        return route, caller

    def begin(self, exchange: Exchange) -> None:
        """Answer a whole request, or hand it to the model, which calls back."""
        try:
            service = self._service
            if service.in_flight >= self.limits.in_flight:
                raise HttpError(
                    429, "too-many-requests", "the server is busy; try again", headers=((b"retry-after", b"1"),)
                )
            body = exchange.route.handler(service, exchange)
        except Exception as error:  # noqa: BLE001 - every error has its answer
            fail(exchange, error)
        else:
            if body is not None:
                exchange.reply(200, body)

    def _caller(self, given: bytes) -> Caller:
        scheme, _, token = given.partition(b" ")
        challenge = ((b"www-authenticate", b"Bearer"),)
        if not given or scheme.lower() != b"bearer":
            raise HttpError(401, "token-missing", "send `Authorization: Bearer TOKEN`", headers=challenge)
        caller = self._tokens.find(token.strip().decode("latin-1"))
        if caller is None:
            if self._tokens.trouble != self._told:
                self._told = self._tokens.trouble
                say(
                    f"tokens cannot be read, so nobody is let in: {self._told}"
                    if self._told
                    else "tokens are read again"
                )
            raise HttpError(401, "token-unknown", "this token is not known here", headers=challenge)
        return caller


def _path(target: bytes) -> bytes:
    """Return the path of a target: without its query, and of an absolute target without the host."""
    try:
        return httptools.parse_url(target).path or b"/"
    except httptools.HttpParserInvalidURLError:
        return target


def _no_route(exchange: Exchange, methods: dict[bytes, Route] | None) -> HttpError:
    if methods is not None:
        allow = b", ".join(sorted(methods))
        return HttpError(
            405, "method-not-allowed", f"this address takes {allow.decode()}", headers=((b"allow", allow),)
        )
    if exchange.target.startswith(b"/v2/models/"):
        return HttpError(404, "model-not-found", "there is no such model or version here")
    return HttpError(404, "route-not-found", "there is nothing at this address")
