"""Answers requests: who may ask is found out, what is too much refused, and the route's handler called.

Handlers are plain functions: they answer on the spot, or have the model's answer call them back; nothing waits in a
task.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from typing import Any

from modelyard._kit.ids import ids_after, new_id
from modelyard.serving.admission import Admission
from modelyard.serving.endpoint import Endpoint
from modelyard.serving.errors import HttpError, check_id, killed
from modelyard.serving.http.encodings import inflate
from modelyard.serving.http.exchange import Exchange, fail
from modelyard.serving.http.heads import Head, Heads
from modelyard.serving.limits import Limits, Unfinished
from modelyard.serving.models import Models, not_here
from modelyard.serving.shedding import Shedding

__all__ = ["App"]

# Bytes of a body from which on it is counted: of smaller ones there are no more than requests may be answered at once.
_LARGE = 65_536


class App:
    """Answers the exchanges of every connection.

    Args:
        endpoints: What answers, by its name; a request that names no model is the first one's.
        limits: Limits of the server.

    Attributes:
        endpoints: Name -> endpoint.
        first: That of requests that name no model.
        limits: Limits of the server.
        connections: Connections that are open.
        calls: Those that speak gRPC.
        unfinished: What has not come whole on any of them.
        cors: Origins whose pages may ask some endpoint from a browser.
        admission: Decides on requests.
        heads: Heads of requests that were admitted within this half of a second.
        ids: Ids for the requests of this process.
        draining: Nothing new is taken, and each connection closes after its answer.
        pressed: A request has found no room a moment ago, and those that find none now are refused at once.
    """

    def __init__(self, endpoints: Sequence[Endpoint], limits: Limits) -> None:
        self.endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self.first = endpoints[0]
        self.limits = limits
        self.connections: set[Any] = set()
        self.calls: set[Any] = set()
        self.unfinished = Unfinished(limits.unfinished)
        self.draining = False
        # Unique without a random number a request.
        self.ids = ids_after(new_id("req"))
        self.cors = frozenset().union(*(endpoint.cors for endpoint in endpoints))
        self.heads = Heads()
        self.pressed = False
        # Where a request has found no room of late.
        self._full: Models | None = None
        self._several = len(endpoints) > 1
        self.admission = Admission(endpoints)
        self._shedding = Shedding(_BUSY, self.ids)

    @property
    def crowded(self) -> bool:
        """Whether the server has more connections than it may have, by both protocols."""
        return len(self.connections) + len(self.calls) > self.limits.connections

    def look(self) -> None:
        """Have every endpoint look after what is due; call it every second or so."""
        for endpoint in self.endpoints.values():
            endpoint.look()

    def left(self) -> None:
        """Have the models look, before they run, for whom nobody waits any more."""
        for endpoint in self.endpoints.values():
            for service in endpoint.models:
                service.batcher.sifts = True

    def refused(self, error: HttpError, exchange: Exchange | None = None) -> None:
        """Count a refusal; without an exchange it never became a request."""
        at = exchange.head.at if exchange is not None else None
        (at or self.first).refused(error, exchange)

    def admit(self, exchange: Exchange) -> None:
        """Find the route, if the caller may take it.

        Raises:
            HttpError: There is none, or the caller may not take it.
        """
        self.name(exchange)
        self.admission.decide(exchange)
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
        models = head.at.models
        if not models.full(self.limits.in_flight):
            # That another endpoint has room says nothing of the one that had none.
            self.pressed = self.pressed and models is not self._full
            return b""
        plain = head.at.sheds and head.route.action == "infer" and not models.killed and not self.draining
        return self._shedding.answer(head) if plain else b""

    def take(self, exchange: Exchange) -> None:
        """Count a request of a caller that may make so many.

        Raises:
            HttpError: The caller has asked too often.
        """
        head = exchange.head
        if head.at.limited and head.route.action == "infer":
            head.at.take(head.caller, asks=head.route.asks)

    def take_call(self, exchange: Exchange) -> None:
        """Count a call whose message may name the endpoint: where there are several, once that is known.

        Raises:
            HttpError: The caller has asked too often.
        """
        if not self._several:
            self.take(exchange)

    def enter(self, exchange: Exchange, name: str) -> Models:
        """Return the models of the endpoint that a message names; `admit` could not know which that is.

        Raises:
            HttpError: There is none of this name (404), the caller may not (403, 429), or there is no room (429).
        """
        if self._several:
            self.admission.enter(exchange, name)
            self.take(exchange)
            if exchange.head.at.models.full(self.limits.in_flight) and exchange.route.action == "infer":
                raise _busy()
        models: Models = exchange.head.at.models
        if name not in ("", models.name):
            raise not_here()
        return models

    def again(self, exchange: Exchange) -> None:
        """Do what `begin` does for a request whose head was admitted a moment ago, unless its caller asks too often."""
        if exchange.head.at.limited:
            try:
                self.take(exchange)
            except HttpError as error:
                exchange.refuse(error)
                return
        self.begin(exchange)

    def begin(self, exchange: Exchange) -> None:
        """Answer a whole request, or hand it to the model, which calls back."""
        try:
            head = exchange.head
            models, route = head.at.models, head.route
            if self._several and route.by_message:
                # Which endpoint it is for is not known yet.
                pass
            elif models.killed and route.asks:
                raise killed()
            # Whether it lives and what it counts is told all the same: who heard nothing would start it again.
            elif models.full(self.limits.in_flight) and route.action == "infer":
                if head.at.sheds:
                    self.pressed, self._full = True, models
                exchange.refuse(_BUSY)
                return
            if not head.usual and b"content-encoding" in head.headers:
                exchange.body = inflate(exchange.body, head.headers[b"content-encoding"], self.limits.body)
            if len(exchange.body) > _LARGE:
                self._hold(exchange)
            body = route.handler(models, exchange)
        except Exception as error:  # noqa: BLE001 - every error has its answer
            fail(exchange, error)
        else:
            if body is not None:
                exchange.reply(200, body)
                models.metrics.count(models, exchange, 200)
                if head.at.access.all:
                    head.at.access.add(exchange, 200, (time.monotonic() - exchange.began) * 1000)

    def _hold(self, exchange: Exchange) -> None:
        """Count a large body among those of which there may be so many, until its request is answered and gone.

        Raises:
            HttpError: There are too many (429).
        """
        size = len(exchange.body)
        weakref.finalize(exchange, self.unfinished.add, -size).atexit = False
        self.unfinished.add(size)


def _busy() -> HttpError:
    return HttpError(429, "too-many-requests", "the server is busy; try again", headers=((b"retry-after", b"1"),))


# Made once: under overload nine of ten requests get it, and what it costs is taken from the tenth. It is never raised,
# since it would gather where.
_BUSY = _busy()
