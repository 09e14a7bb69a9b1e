"""One model at work: what every protocol asks of it, whatever its bytes look like."""

from __future__ import annotations

import asyncio
import time
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

from modelyard._kit.clock import Clock, system_clock
from modelyard.inference import Bundle
from modelyard.inference.decode import decode_rows
from modelyard.serving.accesslog import AccessLog
from modelyard.serving.asked import Asked, AskedMuch, Body, Render
from modelyard.serving.batch import Batcher
from modelyard.serving.connection import Exchange, fail
from modelyard.serving.errors import HttpError, killed
from modelyard.serving.guards.gate import Gate
from modelyard.serving.guards.outgoing import check_finite
from modelyard.serving.limits import Limits
from modelyard.serving.log import RequestLog
from modelyard.serving.metrics import MOST, Tally
from modelyard.serving.validate import Parsed, Validator
from modelyard.store.requests import Answered

if TYPE_CHECKING:
    import numpy as np

    from modelyard.serving.batch import Output

__all__ = ["Asked", "Body", "Picks", "Render", "Service", "Watch"]


class Watch(Protocol):
    """Sees what a version answers."""

    def answered(self, service: Service, group: list[Asked], logged: list[Answered]) -> None:
        """Take what was asked together, and what was answered of it."""
        ...

    def failed(self, service: Service, group: list[Asked]) -> None:
        """Take requests that the model could not answer."""
        ...


class Picks(Protocol):
    """Chooses between two versions that take the same columns."""

    def pick(self, exchange: Exchange) -> Service:
        """Return the version that answers a request."""
        ...


class Service:
    """A bundle, ready to answer.

    Args:
        bundle: The opened bundle.
        endpoint: Name under which it is served.
        log: Where answered requests go.
        limits: Limits of the server.
        trace: Id that ties the deployment to the run that made it.
        clock: Source of the time.

    Attributes:
        draining: The server ends: what is under way is answered, nothing new is taken.
        killed: Somebody has switched the endpoint off: nothing is answered until it is switched on again.
        answered: Requests answered.
        rows: Rows answered.
        tally: What was answered, by route and time.
        access: Where a line about each answered request goes, if that is declared.
        gate: Guards on both sides of the model, if any are declared.
        watch: Sees what is answered, while this version is compared with another one.
        rollout: Says which version answers a request, while another one is tried beside this one.
        closed: Its model is gone.
    """

    def __init__(
        self,
        bundle: Bundle,
        endpoint: str,
        log: RequestLog,
        limits: Limits,
        *,
        trace: str = "",
        clock: Clock = system_clock,
    ) -> None:
        self.endpoint = endpoint
        self.version = bundle.version
        self.signature = bundle.signature
        self.problem = bundle.signature.problem
        self.trace = trace
        self._digest = bundle.version.digest
        # Behind the content type, which is written in any case: naming the version costs an answer nothing.
        self._named = b"\r\nx-model-version: %s" % bundle.version.digest[:12].encode()
        self._json = b"application/json" + self._named
        self.labels = bundle.labels or self.problem.classes
        self.validator = Validator(bundle.signature, rows=limits.rows)
        self.log = log
        self.limits = limits
        self.clock = clock
        self.draining = False
        self.killed = False
        self.answered = 0
        self.rows = 0
        self.watch: Watch | None = None
        self.rollout: Picks | None = None
        self.closed = False
        self.tally = Tally()
        self.access: AccessLog | None = None
        self.gate = Gate.of(bundle, self.validator, limits.policy, self.tally, log)
        fit = self.validator.fit if self.gate is None else self.gate.fit
        self._batcher: Batcher[Asked] = Batcher(bundle.predictor(), fit, self._answered)
        self._parked = 0
        self._began = clock()

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered and logged."""
        return not self.draining and not self.killed and not self.log.trouble

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return self._batcher.waiting + self._parked

    def ask(self, exchange: Exchange, parsed: Parsed, render: Render) -> None:
        """Have the model answer rows that fit, log the answer and write it.

        Args:
            exchange: Whose rows they are; refused (503) if the log is full and stays so.
            parsed: The rows.
            render: Makes the body of the answer.

        Raises:
            HttpError: The endpoint is switched off (503).
        """
        if self.killed:
            raise killed()
        if self.rollout is not None and (other := self.rollout.pick(exchange)) is not self:
            other.ask(exchange, parsed, render)
            return
        if self.log.full:
            self._parked += 1
            self.log.waited += 1
            self._park(Asked(exchange, parsed, render), time.monotonic() + self.limits.backlog_seconds)
        else:
            self._batcher.ask(Asked(exchange, parsed, render))

    def _park(self, asked: Asked, until: float) -> None:
        """Wait for room in the log: an answer that could not be recorded is not given."""
        if self.log.full and time.monotonic() < until:
            asyncio.get_running_loop().call_later(0.01, self._park, asked, until)
            return
        self._parked -= 1
        if self.log.full:
            message = "the server cannot keep up with its records; try again"
            asked.exchange.refuse(HttpError(503, "log-full", message, headers=((b"retry-after", b"5"),)))
        else:
            self._batcher.ask(asked)

    def _answered(self, group: list[Asked], rows: Output | BaseException) -> None:  # noqa: C901 - a call costs as much as it
        """Write the answers of a group, and log them together."""
        if isinstance(rows, BaseException):
            for asked in group:
                fail(asked.exchange, rows)
            if self.gate is not None:
                self.gate.forget(group)
            if self.watch is not None:
                self.watch.failed(self, group)
            return
        problem, labels, rows_of = self.problem, self.labels, self.validator.rows_of
        digest, trace, json = self._digest, self.trace, self._json
        now, ended = self.clock(), time.monotonic()
        logged: list[Answered] = []
        access, gate, held = self.access, self.gate, False
        times, routes = self.tally.times, self.tally.routes
        apart: list[Answered] = []
        at = count = 0
        if isinstance(rows, list):
            # Written out for two classes, which takes a fifth of the time.
            finite = isfinite(sum([a + b for a, b in rows]) if len(problem.classes) == 2 else sum(map(sum, rows)))
        else:
            finite = isfinite(rows.sum(dtype="float64"))
            if gate is None:
                group = [AskedMuch(group[0], rows, problem, labels)]
            else:
                rows = rows.tolist()
        for asked in group:
            parsed, exchange = asked.parsed, asked.exchange
            if parsed.error is not None:
                exchange.refuse(parsed.error)
                continue
            try:
                if isinstance(rows, list):
                    asked.rows = rows[at : at + parsed.count]
                    at += parsed.count
                    asked.decoded = decode_rows(asked.rows, problem, labels)
                if not finite:
                    check_finite(asked, self.tally.decide)
                if gate is None:
                    body = asked.render(self, asked)
                else:
                    seen, held = gate.answer(asked)
                    body = seen.render(self, seen)
                inputs = rows_of(parsed)
            except Exception as error:  # noqa: BLE001 - every error has its answer
                fail(exchange, error)
                continue
            ms = (ended - exchange.began) * 1000
            one = Answered(exchange.id, now, digest, exchange.caller, ms, trace, inputs, asked.answers)
            if held:
                apart.append(one)
            else:
                logged.append(one)
                count += parsed.count
            times.append(ms)
            routes.append(exchange.route)
            if access is not None:
                access.add(exchange, 200, ms)
            if isinstance(body, bytes):
                exchange.reply(200, body, (), json)
            else:
                exchange.reply(200, body.data, body.headers, body.content_type + self._named)
        if logged:
            self.answered += len(logged)
            self.rows += count
            self.log.put(logged, count)
        if len(times) >= MOST:
            self.tally.settle()
        if apart:
            held_rows = sum(len(one.outputs) for one in apart)
            self.answered += len(apart)
            self.rows += held_rows
            self.log.apart().put(apart, held_rows)
        if self.watch is not None:
            self.watch.answered(self, group, logged)

    def warm(self) -> None:
        """Run the model once, so that the first caller does not wait for it."""
        import numpy as np

        feeds: dict[str, np.ndarray[Any, Any]] = {}
        if self.validator.numbers:
            feeds["numeric"] = np.zeros((1, len(self.validator.numbers)), np.float32)
        if self.validator.categories:
            feeds["categorical"] = np.full((1, len(self.validator.categories)), "", object)
        self._batcher.warm(feeds)

    def attempt(self, parsed: Parsed) -> list[list[float]]:
        """Return what the model answers to one request that nobody made; in any thread, and nothing is logged.

        Raises:
            HttpError: The rows do not fit the signature.
        """
        rows = self._batcher.attempt(parsed)
        decode_rows(rows, self.problem, self.labels)
        return rows

    def stats(self) -> dict[str, Any]:
        """Return the server's counters."""
        return {
            "endpoint": self.endpoint,
            "model": self.version.digest,
            "seconds": self.clock() - self._began,
            "answered": self.answered,
            "rows": self.rows,
            "runs": self._batcher.runs,
            "logged": self.log.logged,
            "waiting": self.log.waiting,
            "waited": self.log.waited,
            "trouble": bool(self.log.trouble),
        }

    def close(self) -> None:
        """Stop the model's thread, and let go of the model."""
        self.closed = True
        self._batcher.close()
