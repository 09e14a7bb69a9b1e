"""One endpoint of a server: its models, who may ask them for what, how often, and where a line of each request goes.

A server mostly has one. Several share its port, its event loop and its limits of connections and bytes, and nothing
else: a caller of one is a stranger at the next, unless a token is known at both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from modelyard.security.roles import allowed
from modelyard.security.tokens import Caller, TokenBook
from modelyard.serving.access import Callers
from modelyard.serving.errors import HttpError
from modelyard.serving.guards.bell import Bell
from modelyard.serving.guards.policy import Policy
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.lane import Lane
from modelyard.serving.limits import Days, Limits, Rate
from modelyard.serving.models import Models
from modelyard.serving.observability.accesslog import AccessLog
from modelyard.serving.observability.metrics import tell
from modelyard.serving.routes import Route
from modelyard.serving.service import Service
from modelyard.serving.told import Voice, keep_voice, speaking

__all__ = ["Endpoint"]


class Endpoint:
    """What answers under one name.

    Args:
        models: The versions at work.
        limits: Limits, with what is declared of guards and access.
        tokens: Who may ask.
        roles: Roles that may ask for predictions, of those that may at all; none named means all of them.
        voice: For whom it speaks; that of the process by default.

    Attributes:
        name: Its name.
        models: The versions at work.
        callers: Says who asks.
        cors: Origins whose pages may ask from a browser.
        access: Lines about requests, for the logs.
        voice: For whom it speaks.
        limited: Requests of a caller are counted, and some may be too many.
        lane: Where requests are gathered that are answered together.
        sheds: Nothing else is to be counted, told or allowed where a request finds no room.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits,
        tokens: TokenBook,
        roles: Collection[str] = (),
        voice: Voice | None = None,
    ) -> None:
        self.name = models.name
        self.models = models
        self.voice = voice
        self._roles = roles
        self._per_minute = limits.per_minute
        self._rate = Rate(limits.per_minute)
        # Who has asked for all that they may still tells what came of it; without end nobody does.
        self._told = Rate(limits.per_minute)
        policy = limits.policy
        guards, access = policy.guards, policy.access
        if guards is not None and guards.alarm is not None:
            models.bell = Bell(self.name, guards.alarm, models)
        self.callers = Callers(tokens, access, self.name, voice)
        self.cors = frozenset(origin.encode() for origin in access.cors)
        if access.per_day:
            models.bound(Days(access.per_day))
        extraction = guards.extraction if guards is not None else None
        bounded = extraction is not None and extraction.do == "limit"
        self.limited = bool(limits.per_minute or access.per_day or bounded)
        self.access = _access_log(policy, models.default)
        self.sheds = not (self.limited or self.cors or policy.traces is not None)
        if self.access.all:
            models.tell(self.access)
        models.lane = self.lane = Lane(self, limits.in_flight)

    def permit(self, caller: Caller, route: Route) -> None:
        """Say whether a caller may take a route.

        Raises:
            HttpError: Its role may not (403).
        """
        narrowed = route.action == "infer" and self._roles and caller.role not in self._roles
        if not allowed(caller.role, route.action or "") or narrowed:
            what = f"the role `{caller.role}` may not do this" if caller.role else "you have no role at this endpoint"
            raise HttpError(403, "role-denied", what)

    def take(self, caller: str, *, asks: bool = True) -> None:
        """Count a request of a caller that may make so many.

        Args:
            caller: Name of the caller.
            asks: It is for predictions; else it tells outcomes, of which there may be as many.

        Raises:
            HttpError: The caller has asked too often (429).
        """
        if self._per_minute and (wait := (self._rate if asks else self._told).take(caller)):
            raise _later("rate-exceeded", "this token has asked too often in this minute", wait)
        if asks:
            self._check(caller)

    def takes(self, caller: str) -> bool:
        """Count a request for predictions as `take` does; one that the caller may not make is not counted at all."""
        try:
            self._check(caller)
        except HttpError:
            return False
        return not (self._per_minute and self._rate.take(caller))

    def _check(self, caller: str) -> None:
        """Say nothing if a caller gets answers.

        Raises:
            HttpError: It has asked about enough rows, or looks like copying the model (429).
        """
        if self.models.days is not None:
            self.models.days.check(caller)
        gate = self.models.default.gate
        if gate is not None and gate.asking is not None and (wait := gate.asking.limited(caller)):
            raise _later("caller-limited", "this caller gets no answers for a while", wait)

    def refused(self, error: HttpError, exchange: Exchange | None) -> None:
        """Count a refusal; without an exchange it never became a request."""
        self.models.refused[error.code] += 1
        if exchange is not None:
            took = (time.monotonic() - exchange.began) * 1000 if exchange.began else 0.0
            self.access.add(exchange, error.status, took, error.code)
            self.models.metrics.count(self.models, exchange, error.status)

    def look(self) -> None:
        """Write what waits for the logs, and look at the shares of what is refused; call it every second or so."""
        models, loop = self.models, asyncio.get_running_loop()
        with speaking(self.voice):
            # Not in the loop: a second may have brought thousands of lines.
            loop.run_in_executor(None, keep_voice(self.access.flush))
            if models.bell is not None:
                models.bell.watcher.look(models)
            for service in models:
                asking = service.gate.asking if service.gate is not None else None
                if asking is not None and (taken := asking.take()):
                    loop.run_in_executor(None, asking.look, taken)
        if models.board is not None:
            models.board.tell(tell(models))

    def close_log(self) -> None:
        """Write the last lines."""
        with speaking(self.voice):
            self.access.close()

    def close(self) -> None:
        """Fetch no more keys of callers, and write no more outcomes."""
        self.callers.close()
        self.models.feedback.close()


def _later(code: str, text: str, wait: float) -> HttpError:
    return HttpError(429, code, text, headers=((b"retry-after", b"%d" % (int(wait) + 1)),))


def _access_log(policy: Policy, service: Service) -> AccessLog:
    """Return what takes lines about requests, and where traces are declared, spans."""
    if policy.traces is None:
        return AccessLog(policy.access.log, trace=service.trace)
    from modelyard.serving.observability.traces import Traces

    told = policy.traces
    return Traces(policy.access.log, to=told.to, sample=told.sample, endpoint=service.endpoint, trace=service.trace)
