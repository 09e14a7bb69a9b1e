"""Which route, who asks, may they, and what comes back.

Whatever is not a health route needs a token, also a route that does not exist: a stranger learns nothing. The
order is token, route, role, and only then the body. Handlers are plain functions: they answer on the spot, or have the
model's answer call them back; nothing waits in a task.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Collection
from functools import partial
from typing import Any

import httptools

from modelyard._kit.ids import ids_after, new_id
from modelyard.security.roles import allowed
from modelyard.security.tokens import Caller, TokenBook
from modelyard.serving.access import Callers
from modelyard.serving.errors import HttpError, check_id, killed
from modelyard.serving.guards.bell import Bell
from modelyard.serving.guards.policy import Policy
from modelyard.serving.http.encodings import inflate
from modelyard.serving.http.exchange import Exchange, fail
from modelyard.serving.http.heads import Head, Heads
from modelyard.serving.limits import Days, Limits, Rate, Unfinished
from modelyard.serving.models import Models
from modelyard.serving.observability.accesslog import AccessLog
from modelyard.serving.observability.metrics import tell
from modelyard.serving.routes import Found, Route, match
from modelyard.serving.service import Service
from modelyard.serving.shedding import Shedding

__all__ = ["App"]

# Bytes of a body from which on it is counted: of smaller ones there are no more than requests may be answered at once.
_LARGE = 65_536
# Made once: under overload nine of ten requests get it, and what it costs is taken from the tenth.
_BUSY = HttpError(429, "too-many-requests", "the server is busy; try again", headers=((b"retry-after", b"1"),))
# Who asks for what is open to all.
_NOBODY = Caller("", "")


class App:
    """Answers the exchanges of every connection.

    Args:
        models: The models at work.
        limits: Limits of the server.
        tokens: Who may ask.
        roles: Roles that may ask for predictions, of those that may at all; none named means all of them.

    Attributes:
        limits: Limits of the server.
        connections: Connections that are open.
        calls: Those that speak gRPC.
        unfinished: What has not come whole on any of them.
        callers: Says who asks.
        cors: Origins whose pages may ask from a browser.
        access: Lines about requests, for the logs.
        heads: Heads of requests that were admitted within this half of a second.
        ids: Ids for the requests of this process.
        draining: Nothing new is taken, and each connection closes after its answer.
        pressed: A request has found no room a moment ago, and those that find none now are refused at once.
    """

    def __init__(self, models: Models, limits: Limits, tokens: TokenBook, roles: Collection[str] = ()) -> None:
        self.models = models
        self.limits = limits
        self.connections: set[Any] = set()
        self.calls: set[Any] = set()
        self.unfinished = Unfinished(limits.unfinished)
        self.draining = False
        self._roles = roles
        self._rate = Rate(limits.per_minute)
        if limits.policy.guards is not None and limits.policy.guards.alarm is not None:
            models.bell = Bell(models.default.endpoint, limits.policy.guards.alarm, models)
        # Unique without a random number a request.
        self.ids = ids_after(new_id("req"))
        access = limits.policy.access
        self.callers = Callers(tokens, access)
        self.cors = frozenset(origin.encode() for origin in access.cors)
        if access.per_day:
            models.bound(Days(access.per_day))
        extraction = limits.policy.guards.extraction if limits.policy.guards is not None else None
        bounded = extraction is not None and extraction.do == "limit"
        self._limited = bool(limits.per_minute or access.per_day or bounded)
        self.heads = Heads()
        self.access = _access_log(limits.policy, models.default)
        self.pressed = False
        # Nothing else is to be counted, told or allowed where a request is refused.
        self._sheds = not (self._limited or self.cors or limits.policy.traces is not None)
        self._shedding = Shedding(_BUSY, models, self.access, self.ids)
        if self.access.all:
            models.tell(self.access)

    @property
    def crowded(self) -> bool:
        """Whether the server has more connections than it may have, by both protocols."""
        return len(self.connections) + len(self.calls) > self.limits.connections

    def look(self) -> None:
        """Write what waits for the logs, and look at the shares of what is refused; call it every second or so."""
        # Not in the loop: a second may have brought thousands of lines.
        asyncio.get_running_loop().run_in_executor(None, self.access.flush)
        if self.models.bell is not None:
            self.models.bell.watcher.look(self.models)
        for service in self.models:
            asking = service.gate.asking if service.gate is not None else None
            if asking is not None and (taken := asking.take()):
                asyncio.get_running_loop().run_in_executor(None, asking.look, taken)
        if self.models.board is not None:
            self.models.board.tell(tell(self.models))

    def left(self) -> None:
        """Have the model look, before it runs, for whom nobody waits any more."""
        for service in self.models:
            service.batcher.sifts = True

    def refused(self, error: HttpError, exchange: Exchange | None = None) -> None:
        """Count a refusal; without an exchange it never became a request."""
        self.models.refused[error.code] += 1
        if exchange is not None:
            took = (time.monotonic() - exchange.began) * 1000 if exchange.began else 0.0
            self.access.add(exchange, error.status, took, error.code)
            self.models.metrics.count(self.models, exchange, error.status)

    def admit(self, exchange: Exchange) -> None:
        """Find the route, if the caller may take it.

        Raises:
            HttpError: There is none, or the caller may not take it.
        """
        self.name(exchange)
        route, caller = self._decide(exchange, exchange.headers.get(b"authorization", b""))
        exchange.head.decided(caller.name, caller.role, route)
        self.take(exchange)

    def name(self, exchange: Exchange) -> None:
        """Give a request its id: the caller's, or one of ours.

        Raises:
            HttpError: The caller's cannot be one.
        """
        exchange.id = next(self.ids)
        if b"x-request-id" in exchange.headers:
            exchange.id = check_id(exchange.headers[b"x-request-id"].decode("latin-1"))

    def shed(self, head: Head) -> bytes:
        """Return the refusal of a request that finds no room, as `begin` would give it; empty if it finds some."""
        if not self.models.full(self.limits.in_flight):
            self.pressed = False
            return b""
        plain = head.route.action == "infer" and not self.models.killed and not self.draining
        return self._shedding.answer(head) if plain else b""

    def take(self, exchange: Exchange) -> None:
        """Count a request of a caller that may ask for so many.

        Raises:
            HttpError: The caller has asked too often.
        """
        if not self._limited or exchange.route.action != "infer":
            return
        caller = exchange.caller
        if self.limits.per_minute and (wait := self._rate.take(caller)):
            after = ((b"retry-after", b"%d" % (int(wait) + 1)),)
            raise HttpError(429, "rate-exceeded", "this token has asked too often in this minute", headers=after)
        if self.models.days is not None:
            self.models.days.check(caller)
        gate = self.models.default.gate
        if gate is not None and gate.asking is not None and (wait := gate.asking.limited(caller)):
            after = ((b"retry-after", b"%d" % (int(wait) + 1)),)
            raise HttpError(429, "caller-limited", "this caller gets no answers for a while", headers=after)

    def _decide(self, exchange: Exchange, given: bytes) -> tuple[Route, Caller]:
        """Return route and caller, if the caller may take it."""
        target, method = exchange.target, exchange.method
        # A query would be taken for a part of the name that a path may end with.
        found = (match(target) if b"?" not in target else None) or match(_path(target))
        route = found.routes.get(b"GET" if method == b"HEAD" else method) if found else None
        if route is not None and route.action is None:
            return route, _NOBODY
        if method == b"OPTIONS" and self.cors and found is not None and _asks_first(exchange, self.cors):
            return Route("OPTIONS", "", None, partial(_preflight, b", ".join(sorted(found.routes)))), _NOBODY
        caller = self.callers.find(exchange, given, route.path if route else "")
        if found is None:
            raise _no_route(exchange)
        exchange.head.model, exchange.head.version = found.model, found.version
        self.models.find(found.model, found.version)
        if route is None:
            raise _no_method(found)
        self.permit(caller, route)
        return route, caller

    def permit(self, caller: Caller, route: Route) -> None:
        """Say whether a caller may take a route.

        Raises:
            HttpError: Its role may not (403).
        """
        narrowed = route.action == "infer" and self._roles and caller.role not in self._roles
        if not allowed(caller.role, route.action or "") or narrowed:
            raise HttpError(403, "role-denied", f"the role `{caller.role}` may not do this")

    def again(self, exchange: Exchange) -> None:
        """Do what `begin` does for a request whose head was admitted a moment ago, unless its caller asks too often."""
        if self._limited:
            try:
                self.take(exchange)
            except HttpError as error:
                exchange.refuse(error)
                return
        self.begin(exchange)

    def begin(self, exchange: Exchange) -> None:
        """Answer a whole request, or hand it to the model, which calls back."""
        try:
            models, head = self.models, exchange.head
            if models.killed and head.route.asks:
                self._check_alive(exchange)
            # Whether it lives and what it counts is told all the same: who heard nothing would start it again.
            if models.full(self.limits.in_flight) and head.route.action == "infer":
                self.pressed = self._sheds
                exchange.refuse(_BUSY)
                return
            if not head.usual and b"content-encoding" in head.headers:
                exchange.body = inflate(exchange.body, head.headers[b"content-encoding"], self.limits.body)
            if len(exchange.body) > _LARGE:
                self._hold(exchange)
            handler = head.route.handler
            body = handler(models, exchange)
        except Exception as error:  # noqa: BLE001 - every error has its answer
            fail(exchange, error)
        else:
            if body is not None:
                exchange.reply(200, body)
                models.metrics.count(models, exchange, 200)
                if self.access.all:
                    self.access.add(exchange, 200, (time.monotonic() - exchange.began) * 1000)

    def _hold(self, exchange: Exchange) -> None:
        """Count a large body among those of which there may be so many, until its request is answered and gone.

        Raises:
            HttpError: There are too many (429).
        """
        size = len(exchange.body)
        weakref.finalize(exchange, self.unfinished.add, -size).atexit = False
        self.unfinished.add(size)

    def _check_alive(self, exchange: Exchange) -> None:
        """Refuse what is asked of an endpoint that is switched off, whatever its body holds.

        Raises:
            HttpError: It is switched off (503).
        """
        if (exchange.model or self.models.default.endpoint) in self.models.killed:
            raise killed()


def _access_log(policy: Policy, service: Service) -> AccessLog:
    """Return what takes lines about requests, and where traces are declared, spans."""
    if policy.traces is None:
        return AccessLog(policy.access.log, trace=service.trace)
    from modelyard.serving.observability.traces import Traces

    told = policy.traces
    return Traces(policy.access.log, to=told.to, sample=told.sample, endpoint=service.endpoint, trace=service.trace)


def _asks_first(exchange: Exchange, cors: frozenset[bytes]) -> bool:
    """Whether a browser asks if a page of an allowed origin may ask."""
    headers = exchange.headers
    return b"access-control-request-method" in headers and headers.get(b"origin", b"") in cors


def _preflight(methods: bytes, models: Models, exchange: Exchange) -> None:
    """Tell a browser what the pages of its origin may send; the token itself is asked for with the request."""
    allowed_headers = b"authorization, content-type, x-request-id, inference-header-content-length"
    exchange.reply(
        200,
        b"",
        (
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", allowed_headers),
            (b"access-control-max-age", b"600"),
        ),
        b"text/plain",
    )


def _path(target: bytes) -> bytes:
    """Return the path of a target: without its query, and of an absolute target without the host."""
    try:
        return httptools.parse_url(target).path or b"/"
    except httptools.HttpParserInvalidURLError:
        return target


def _no_route(exchange: Exchange) -> HttpError:
    if exchange.target.startswith(b"/v2/models/"):
        return HttpError(404, "model-not-found", "there is no such model or version here")
    return HttpError(404, "route-not-found", "there is nothing at this address")


def _no_method(found: Found) -> HttpError:
    allow = b", ".join(sorted(found.routes))
    return HttpError(405, "method-not-allowed", f"this address takes {allow.decode()}", headers=((b"allow", allow),))
