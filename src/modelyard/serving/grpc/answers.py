"""Which method, who asks, may they: the rules of every protocol, for calls of gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.serving.errors import HttpError
from modelyard.serving.grpc.methods import find

if TYPE_CHECKING:
    from modelyard.serving.app import App
    from modelyard.serving.grpc.calls import Call, Turn

__all__ = ["Calls"]


class Calls:
    """Answers the calls of every connection, by the server's own means.

    Args:
        app: What answers the exchanges of HTTP/1.1.

    Attributes:
        limits: Limits of the server.
        connections: Connections that are open.
        unfinished: What has not come whole on any connection, by both protocols.
        begin: Answers a whole call, or hands it to the model, which calls back.
        enter: Finds the endpoint that a message names.
        refused: Counts a refusal.
        left: Takes note that somebody who waits for an answer has hung up.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.limits = app.limits
        self.connections = app.calls
        self.unfinished = app.unfinished
        self.begin, self.enter = app.begin, app.enter
        self.refused = app.refused
        self.left = app.left

    @property
    def crowded(self) -> bool:
        """Whether the server has more connections than it may have, by both protocols."""
        return self._app.crowded

    def admit(self, call: Call, now: float) -> None:
        """Find the method, if the caller may use it; who that is, is known for half a second.

        Raises:
            HttpError: There is none, or the caller may not use it.
        """
        known, age = call.known, self._app.heads.age(now)
        if known.age == age and known.lasting and not known.route.streams:
            call.head.decided(known.caller, known.role, known.route, known.at, known.seen)
            call.id = next(self._app.ids)
            self._app.take_call(call)
            return
        self._app.name(call)
        if known.error is not None:
            raise known.error
        self._decide(call, age)
        if b"x-request-id" in call.headers:
            known.lasting = False
        # Of a call with many messages, each of them is counted.
        if not call.route.streams:
            self._app.take_call(call)

    def take_turn(self, turn: Turn) -> None:
        """Answer one message of a call with many: each is let in as a call of its own."""
        call = turn.call
        try:
            age = self._app.heads.age(turn.began)
            if call.known.age != age:
                # The token may have been revoked since the call began.
                self._decide(call, age)
        except HttpError as error:
            call.refuse(error)
            return
        head = call.head
        turn.head.decided(head.caller, head.role, head.route, head.at, head.seen)
        try:
            turn.id = next(self._app.ids)
            self._app.take_call(turn)
        except HttpError as error:
            turn.refuse(error)
            return
        self.begin(turn)

    def _decide(self, call: Call, age: int) -> None:
        """Find method and caller, and keep them until all is forgotten.

        Raises:
            HttpError: There is none, or the caller may not use it.
        """
        method, head, known = find(call.target), call.head, call.known
        if method is None:
            self._app.admission.known(call)
            raise HttpError(404, "route-not-found", "there is no such method here")
        self._app.admission.about(call, method)
        known.age, known.route, known.caller, known.role = age, method, head.caller, head.role
        known.at, known.seen = head.at, head.seen
