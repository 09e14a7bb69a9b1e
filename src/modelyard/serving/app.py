"""The ASGI application: which route, who asks, may they, and what comes back.

Whatever is not a health route needs a token, also a route that does not exist: a stranger learns nothing. The
order is token, route, role, and only then the body.
"""

from __future__ import annotations

import itertools
import sys
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard._kit.ids import new_id
from modelyard.security.redact import redact
from modelyard.security.roles import Action, allowed
from modelyard.security.tokens import Caller, TokenBook
from modelyard.serving import protocol
from modelyard.serving.errors import HttpError, body_of, check_id
from modelyard.serving.limits import Gone, Headers, Rate, discard, has_body, header, read_body
from modelyard.serving.predict import predict
from modelyard.serving.service import Service

__all__ = ["ROUTES", "App", "Request", "Route", "paths_of"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")


@dataclass(slots=True)
class Request:
    """One request on its way through."""

    service: Service
    headers: Headers
    receive: Receive
    id: str
    caller: str = ""
    read: bool = False

    async def body(self) -> bytes:
        """Return the body."""
        body = await read_body(self.headers, self.receive, self.service.limits.body)
        self.read = True
        return body


async def _live(request: Request) -> bytes:
    return b'{"live":true}'


async def _ready(request: Request) -> bytes:
    if not request.service.ready:
        raise HttpError(503, "not-ready", "the server does not take requests at the moment")
    return b'{"ready":true}'


async def _server(request: Request) -> bytes:
    return protocol.server_metadata()


async def _model(request: Request) -> bytes:
    return protocol.model_metadata(request.service)


async def _model_ready(request: Request) -> bytes:
    await _ready(request)
    return msgspec.json.encode({"name": request.service.endpoint, "ready": True})


async def _infer(request: Request) -> bytes:
    binary = bool(header(request.headers, b"inference-header-content-length"))
    body = await request.body()
    answer, request.id = await protocol.infer(request.service, body, request.id, request.caller, binary=binary)
    return answer


async def _predict(request: Request) -> bytes:
    return await predict(request.service, await request.body(), request.id, request.caller)


async def _stats(request: Request) -> bytes:
    return msgspec.json.encode(request.service.stats())


@dataclass(frozen=True, slots=True)
class Route:
    """A path and method, what a caller must be allowed to do, and who answers; no action: open to all."""

    method: str
    path: str
    action: Action | None
    handler: Callable[[Request], Awaitable[bytes]]


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v2/health/live", None, _live),
    Route("GET", "/v2/health/ready", None, _ready),
    Route("GET", "/v2", "read", _server),
    Route("GET", "/v2/models/{model}", "read", _model),
    Route("GET", "/v2/models/{model}/ready", "read", _model_ready),
    Route("POST", "/v2/models/{model}/infer", "infer", _infer),
    Route("GET", "/v2/models/{model}/versions/{version}", "read", _model),
    Route("GET", "/v2/models/{model}/versions/{version}/ready", "read", _model_ready),
    Route("POST", "/v2/models/{model}/versions/{version}/infer", "infer", _infer),
    Route("POST", "/predict", "infer", _predict),
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
    """The ASGI callable.

    Args:
        service: The model at work.
        tokens: Who may ask.
        roles: Roles that may ask for predictions, of those that may at all; none named means all of them.
    """

    def __init__(self, service: Service, tokens: TokenBook, roles: Collection[str] = ()) -> None:
        self._service = service
        self._tokens = tokens
        self._roles = roles
        self._rate = Rate(service.limits.per_minute)
        self._routes: dict[str, dict[str, Route]] = {}
        for path, route in paths_of(service):
            self._routes.setdefault(path, {})[route.method] = route
        # Ids of this process: unique without a random number a request.
        self._prefix = new_id("req")
        self._count = itertools.count(1)
        self._in_flight = 0
        self._told = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(scope["type"])
        headers: Headers = scope["headers"]
        request = Request(self._service, headers, receive, f"{self._prefix}-{next(self._count):x}")
        path: str = scope["path"]
        try:
            request.id = _own_id(headers) or request.id
            route = self._find(scope["method"], path, request)
            if self._in_flight >= self._service.limits.in_flight:
                raise HttpError(
                    429, "too-many-requests", "the server is busy; try again", headers=((b"retry-after", b"1"),)
                )
            self._in_flight += 1
            try:
                body = await route.handler(request)
            finally:
                self._in_flight -= 1
        except HttpError as error:
            await self._refuse(error, request, path, send)
        except Gone:
            return
        except Exception as error:  # noqa: BLE001 - the caller gets an id, the operator gets the trace
            _tell(error, request.id)
            fault = HttpError(500, "internal", "the server could not answer this; its operator finds more under the id")
            await self._refuse(fault, request, path, send)
        else:
            await _send(send, 200, body, request.id)

    def _find(self, method: str, path: str, request: Request) -> Route:
        """Return the route if the caller may take it."""
        methods = self._routes.get(path)
        wanted = "GET" if method == "HEAD" else method
        route = methods.get(wanted) if methods else None
        if route is not None and route.action is None:
            return route
        caller = self._caller(request.headers)
        request.caller = caller.name
        if methods is None:
            if path.startswith("/v2/models/"):
                raise HttpError(404, "model-not-found", "there is no such model or version here")
            raise HttpError(404, "route-not-found", "there is nothing at this address")
        if route is None:
            allow = ", ".join(sorted(methods)).encode()
            raise HttpError(
                405, "method-not-allowed", f"this address takes {allow.decode()}", headers=((b"allow", allow),)
            )
        infers = route.action == "infer"
        if not allowed(caller.role, route.action or "") or (infers and self._roles and caller.role not in self._roles):
            raise HttpError(403, "role-denied", f"the role `{caller.role}` may not do this")
        if infers and (wait := self._rate.take(caller.name)):
            after = ((b"retry-after", b"%d" % (int(wait) + 1)),)
            raise HttpError(429, "rate-exceeded", "this token has asked too often in this minute", headers=after)
        return route

    def _caller(self, headers: Headers) -> Caller:
        given = header(headers, b"authorization")
        scheme, _, token = given.partition(b" ")
        challenge = ((b"www-authenticate", b"Bearer"),)
        if not given or scheme.lower() != b"bearer":
            raise HttpError(401, "token-missing", "send `Authorization: Bearer TOKEN`", headers=challenge)
        caller = self._tokens.find(token.strip().decode("latin-1"))
        if caller is None:
            if self._tokens.trouble != self._told:
                self._told = self._tokens.trouble
                _say(
                    f"tokens cannot be read, so nobody is let in: {self._told}"
                    if self._told
                    else "tokens are read again"
                )
            raise HttpError(401, "token-unknown", "this token is not known here", headers=challenge)
        return caller

    async def _refuse(self, error: HttpError, request: Request, path: str, send: Send) -> None:
        self._service.refused[error.code] += 1
        body = body_of(error, request.id, v2=path.startswith("/v2"))
        unread = not request.read and has_body(request.headers)
        if not unread:
            await _send(send, error.status, body, request.id, error.headers)
            return
        # The caller may still be sending: answer at once, listen to the rest for a while, then hang up.
        extra = (*error.headers, (b"connection", b"close"))
        await _start(send, error.status, body, request.id, extra)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await discard(request.receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, status: int, body: bytes, request_id: str, extra: Headers = ()) -> None:
    await _start(send, status, body, request_id, extra)
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, status: int, body: bytes, request_id: str, extra: Headers) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode()), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _own_id(headers: Headers) -> str:
    """Return the id that the caller gave, if it can be one."""
    given = header(headers, b"x-request-id")
    return check_id(given.decode("latin-1")) if given else ""


def _tell(error: Exception, request_id: str) -> None:
    trace = redact("".join(traceback.format_exception(error)))
    _say(f"{request_id} not answered:\n{trace}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
