"""Which endpoint and route a request is for, who asks, and may they.

Whatever is not a health route needs a token, also a route that does not exist: a stranger learns nothing. The
order is token, route, role, and only then the body.

Where there are several endpoints, a path that names a model leads to its endpoint; one that names none leads to the
first, or, where it asks about the server, to all that the caller may ask about. `/models/NAME` before a path leads to
that endpoint as if there were no other. A caller who is known at another endpoint alone learns no more of one than that
it is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import httptools

from modelyard.security.tokens import Caller
from modelyard.serving.endpoint import Endpoint
from modelyard.serving.errors import HttpError
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.http.heads import MOUNT
from modelyard.serving.models import Models, not_here
from modelyard.serving.routes import Found, Route, match

__all__ = ["Admission"]

# What a page may say in headers: all that a caller may, but for what is between a proxy and the server.
_SENT = (
    b"authorization, content-type, content-encoding, inference-header-content-length, traceparent, tracestate, "
    b"x-canary-key, x-model, x-request-id"
)


class Admission:
    """Decides on requests.

    Args:
        endpoints: What answers; a request that names no model is the first one's.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._first = endpoints[0]

    def decide(self, exchange: Exchange) -> None:
        """Note route, endpoint and caller, if the caller may take the route.

        Raises:
            HttpError: There is no such route, or the caller may not take it.
        """
        head, method = exchange.head, exchange.method
        mounted, found = _look(exchange.target)
        route = found.routes.get(b"GET" if method == b"HEAD" else method) if found else None
        named = found.model if found is not None else ""
        place = self._place(mounted, named)
        # Who may not pass is counted there, too.
        head.at = place or self._first
        if route is not None and route.action is None and place is not None:
            head.decided("", "", route, place, self._all(mounted))
            return
        if method == b"OPTIONS" and found is not None and _asks_first(exchange, head.at.cors):
            answer = partial(_preflight, b", ".join(sorted(found.routes)))
            head.decided("", "", Route("OPTIONS", "", None, answer), head.at, ())
            return
        if route is not None and route.wide and mounted is None:
            self.about(exchange, route)
            return
        caller = self._known(place, exchange, route.path if route else "", named=bool(named or mounted))
        if found is None:
            raise _no_route(exchange.target)
        if place is None:
            raise not_here()
        head.model, head.version = named, found.version
        # Whoever operates it may ask about what is unloaded, too.
        if named and (route is None or route.action != "operate"):
            place.models.find(named, found.version)
        if route is None:
            raise _no_method(found)
        place.permit(caller, route)
        head.decided(caller.name, caller.role, route, place, (place.models,))
        head.lane = place.lane if route.joins else None

    def about(self, exchange: Exchange, route: Route) -> None:
        """Note route and caller of a question about the server, and the models of all endpoints where they may ask it.

        Raises:
            HttpError: Nobody that is known at any (401), or who may do so nowhere (403).
        """
        if route.action is None:
            exchange.head.decided("", "", route, self._first, self._all(None))
            return
        unknown: HttpError | None = None
        denied: HttpError | None = None
        found: list[tuple[Endpoint, Caller]] = []
        for endpoint in self._endpoints.values():
            try:
                caller = endpoint.callers.find(exchange, route.path)
            except HttpError as error:
                unknown = unknown or error
                continue
            try:
                endpoint.permit(caller, route)
            except HttpError as error:
                # Nobody learns of it where who asks is not known.
                exchange.head.at = endpoint if denied is None else exchange.head.at
                denied = denied or error
                continue
            found.append((endpoint, caller))
        if not found:
            raise denied or unknown or not_here()
        place, caller = found[0]
        exchange.head.decided(caller.name, caller.role, route, place, tuple(one.models for one, _ in found))

    def known(self, exchange: Exchange) -> None:
        """Say nothing if who asks is known at some endpoint.

        Raises:
            HttpError: It is not (401).
        """
        self._known(None, exchange, "")

    def enter(self, exchange: Exchange, name: str) -> None:
        """Note the endpoint that a message names, and who asks there.

        Raises:
            HttpError: There is none of this name (404), or the caller may not take the route there (403).
        """
        head = exchange.head
        place = self._place(None, name)
        caller = self._known(place, exchange, "")
        if place is None:
            raise not_here()
        # Who may not pass is counted there, too.
        head.decided(caller.name, caller.role, head.route, place, (place.models,))
        place.permit(caller, head.route)

    def _place(self, mounted: str | None, named: str) -> Endpoint | None:
        """Return the endpoint of a path; none: it names one that is not here, or one under the path of another."""
        if mounted is not None:
            return self._endpoints.get(mounted) if named in ("", mounted) else None
        if not named:
            return self._first
        return self._endpoints.get(named)

    def _all(self, mounted: str | None) -> tuple[Models, ...]:
        """Return what a question that is open to all is about."""
        return tuple(one.models for name, one in self._endpoints.items() if mounted in (None, name))

    def _known(self, place: Endpoint | None, exchange: Exchange, path: str, *, named: bool = True) -> Caller:
        """Return who asks at a place, which they may have named; at none, who asks wherever they are known.

        Raises:
            HttpError: Nobody that is known at any (401), or at this one (404).
        """
        first: HttpError | None = None
        for endpoint in self._beginning(place):
            try:
                caller = endpoint.callers.find(exchange, path)
            except HttpError as error:
                first = first or error
                continue
            if place is None or endpoint is place:
                return caller
            raise (
                not_here() if named else HttpError(404, "model-not-found", "name your model: /models/NAME before this")
            )
        raise first or not_here()

    def _beginning(self, place: Endpoint | None) -> Iterator[Endpoint]:
        """Yield every endpoint, one of them before the others."""
        if place is not None:
            yield place
        yield from (other for other in self._endpoints.values() if other is not place)


def _look(target: bytes) -> tuple[str | None, Found | None]:
    """Return the endpoint that a target is mounted under, by its name, and the routes that the rest leads to."""
    # A query would be taken for a part of the name that a path may end with.
    plain = _split(target) if b"?" not in target else (None, None)
    return plain if plain[1] is not None else _split(_path(target))


def _split(path: bytes) -> tuple[str | None, Found | None]:
    if not path.startswith(MOUNT):
        return None, match(path)
    name, slash, rest = path[len(MOUNT) :].partition(b"/")
    return name.decode("latin-1"), match(slash + rest)


def _asks_first(exchange: Exchange, cors: frozenset[bytes]) -> bool:
    """Whether a browser asks if a page of an allowed origin may ask."""
    headers = exchange.headers
    return b"access-control-request-method" in headers and headers.get(b"origin", b"") in cors


def _preflight(methods: bytes, models: Models, exchange: Exchange) -> None:
    """Tell a browser what the pages of its origin may send; the token itself is asked for with the request."""
    exchange.reply(
        200,
        b"",
        (
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", _SENT),
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


def _no_route(target: bytes) -> HttpError:
    if target.startswith((b"/v2/models/", MOUNT)):
        return not_here()
    return HttpError(404, "route-not-found", "there is nothing at this address")


def _no_method(found: Found) -> HttpError:
    allow = b", ".join(sorted(found.routes))
    return HttpError(405, "method-not-allowed", f"this address takes {allow.decode()}", headers=((b"allow", allow),))
