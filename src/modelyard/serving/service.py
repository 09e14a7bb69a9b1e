"""One model at work: what every protocol asks of it, whatever its bytes look like."""

from __future__ import annotations

import time
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import Clock, system_clock
from modelyard._kit.digest import short
from modelyard.inference import Bundle
from modelyard.inference.decode import decode_rows
from modelyard.security.roles import allowed
from modelyard.serving.asked import Asked, Body, Render
from modelyard.serving.batch import Batcher
from modelyard.serving.contract.usual import usual_row
from modelyard.serving.errors import errs, killed
from modelyard.serving.guards.gate import Gate
from modelyard.serving.guards.outgoing import Withheld, check_finite
from modelyard.serving.http.exchange import Exchange, fail
from modelyard.serving.limits import Days, Limits
from modelyard.serving.observability.accesslog import AccessLog
from modelyard.serving.observability.keeping import Keeper
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.observability.metrics import Tally
from modelyard.serving.outputs import hand_out, measure, packed
from modelyard.serving.parking import park
from modelyard.serving.parsed import Parsed
from modelyard.serving.protocols.writing import Writer
from modelyard.serving.recording import keep
from modelyard.serving.sifting import Hurried, drop, least, stays, turn_away
from modelyard.serving.validate import Validator
from modelyard.serving.versions.choosing import HEADER, check_alone
from modelyard.serving.watching import Picks, Watch
from modelyard.store.packed import Packed
from modelyard.store.requests import LOAD_TEST, Outputs

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Asked", "Body", "Render", "Service"]


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
        digest: Digest of the version, as it stands in answers.
        usual: A usual row, for the examples of its description.
        writer: Writes the answers of `POST /predict`.
        runtime: What answers for the model, on how many threads, and whether somebody decided that.
        draining: The server ends: what is under way is answered, nothing new is taken.
        killed: Somebody has switched the endpoint off: nothing is answered until it is switched on again.
        answered: Requests answered.
        rows: Rows answered.
        erred: Requests that could not be answered for what the model said or raised, or by a mistake of the server.
        last: When the last of them was answered; 0: none was.
        tally: What was answered, by route and time.
        batcher: Gathers the requests of a turn of the event loop for the model.
        days: Counts what callers ask about in a day, if that is bounded.
        access: Where a line about each answered request goes, if that is declared.
        keeper: Chooses what of them is written down.
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
        self.version, self.signature = bundle.version, bundle.signature
        self.problem = bundle.signature.problem
        self.trace = trace
        self.digest = bundle.version.digest.encode()
        # Behind the content type, which is written in any case: it costs an answer nothing.
        self._named = b"\r\nx-model-version: %s" % short(bundle.version.digest).encode()
        self._json = b"application/json" + self._named
        self.labels = bundle.labels or self.problem.classes
        self.usual = usual_row(bundle.signature, bundle.profile)
        self.validator = Validator(bundle.signature, rows=limits.rows)
        self.writer = Writer(self.problem, bundle.version.digest, self.labels, self._json)
        self.keeper = Keeper(self.validator, limits.policy.requests)
        self.log, self.limits, self.clock = log, limits, clock
        self.runtime = {"name": bundle.runtime.name, "threads": bundle.runtime.threads, "decided": bool(bundle.decided)}
        self.draining = self.killed = self.closed = False
        self.answered = self.rows = self.erred = 0
        self.last = 0.0
        self.watch: Watch | None = None
        self.rollout: Picks | None = None
        self.days: Days | None = None
        self.tally = Tally()
        self.access: AccessLog | None = None
        self.gate = Gate.of(bundle, self.validator, limits.policy, self.tally, log)
        fit = self.validator.fit if self.gate is None else self.gate.fit
        answered = self._answered if self.gate is None or self.gate.checks is None else self._check
        self.batcher: Batcher[Asked] = Batcher(bundle.predictor(), fit, answered, stays, drop)
        self._began = clock()
        self._bounds = measure()

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered and logged."""
        return not self.draining and not self.killed and not self.log.trouble

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return self.batcher.waiting

    def ask(self, exchange: Exchange, parsed: Parsed, render: Render, timeout: float = 0.0) -> None:
        """Have the model answer rows that fit, log the answer and write it.

        Args:
            exchange: Whose rows they are; refused (503) if the log is full and stays so.
            parsed: The rows.
            render: Makes the body of the answer.
            timeout: Seconds after which the answer is not worth anything any more, if the body says so.

        Raises:
            HttpError: The endpoint is switched off (503), the caller has asked about enough rows (429), or a version is
                asked for that does not answer (400), or an answer within a time that is none (400).
        """
        if self.killed:
            raise killed()
        usual = exchange.head.usual
        if not usual:
            timeout = least(timeout, exchange.headers)
            # Here the id is final, by whatever way it came; who could hide a request would not be watched.
            if b"x-load-test" in exchange.headers and allowed(exchange.role, "operate"):
                exchange.id = LOAD_TEST + exchange.id
        chosen = self
        if self.rollout is not None:
            chosen = self.rollout.pick(exchange)
        elif not usual and HEADER in exchange.headers:
            check_alone(exchange)
        if self.days is not None:
            self.days.take(exchange.caller, parsed.count)
        if timeout:
            asked: Asked = Hurried(exchange, parsed, render, exchange.began + timeout)
            chosen.batcher.sifts = True
        else:
            asked = Asked(exchange, parsed, render)
        if chosen.log.tight and chosen.log.full:
            chosen.batcher.waiting += 1
            chosen.log.waited += 1
            park(chosen, asked, time.monotonic() + self.limits.backlog_seconds)
        else:
            chosen.batcher.ask(asked)

    def kill(self) -> None:
        """Answer nothing any more but what the model has at hand."""
        self.killed = True
        for asked in self.batcher.drop():
            asked.exchange.refuse(killed())

    def _check(self, group: list[Asked], output: Array | BaseException | None) -> None:
        """Have the declared checks look at the answers of a group before they are written."""
        if self.gate.checks.clears(group, output):  # type: ignore[union-attr]
            self._answered(group, output)
        else:
            self.batcher.waiting += len(group)
            self.gate.checks.look(group, output, self._checked)  # type: ignore[union-attr]

    def _checked(self, group: list[Asked], output: Array | BaseException | None) -> None:
        self.batcher.waiting -= len(group)
        self._answered(group, output)

    def _failed(self, group: list[Asked], error: BaseException) -> None:
        """Refuse a group that the model could not answer; whose rows do not fit is told that."""
        for asked in group:
            self.fail(asked.exchange, asked.parsed.error or error)
        if self.gate is not None:
            self.gate.forget(group)

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """Answer with an error, and count it among those of this version if it is one of them."""
        self.erred += errs(error)
        fail(exchange, error)

    def _answered(self, group: list[Asked], output: Array | BaseException | None) -> None:
        """Write the answers of a group, and log them together."""
        if isinstance(output, BaseException):
            self._failed(group, output)
            return
        ended = time.monotonic()
        gate, keeper = self._gate_for(group, output), self.keeper
        rows = [asked.parsed for asked in group]
        counts = [parsed.count for parsed in rows]
        if output is not None:
            hand_out(group, counts, output, self.problem, self.labels, much=gate is None)
        finite = output is None or gate is not self.gate or self.finite(output)
        # Where nothing is to be looked at one by one, the rows of all requests may go to the log as one.
        joins = gate is None and keeper.joins
        if gate is None and finite:
            done, inputs = self._write(group, output, joins=joins)
        else:
            done, inputs = self._guard(group, gate, ended, finite=finite)
        took: list[float] = []
        if done:
            every = len(done) == len(group)
            if not every:
                rows = [asked.parsed for asked in done]
                counts = [parsed.count for parsed in rows]
            given = keeper.together(rows) if joins else inputs
            # Where every row was answered, the model's output is written as it came.
            outputs: Outputs
            if output is not None and gate is None and every and keeper.all:
                outputs = packed(output, self.problem, list(chain.from_iterable([one.predictions for one in done])))
            else:
                outputs = [one.decoded for one in done]
            took = keep(self, done, counts, given, outputs, ended)
        if self.watch is not None:
            self.watch.answered(self, group, took)

    def _write(
        self, group: list[Asked], output: Array | None, *, joins: bool
    ) -> tuple[list[Asked], list[bytes | Packed]]:
        """Write the answers of a group as the model gave them; return who got one, and their rows unless it joins."""
        if joins and self.writer.post(group, output):
            return group, []
        rows_of, json = self.keeper.rows_of, self._json
        done: list[Asked] = []
        inputs: list[bytes | Packed] = []
        for asked in group:
            exchange = asked.exchange
            if exchange.settled or asked.parsed.error is not None:
                turn_away(asked)
                continue
            try:
                render = asked.render
                body = render(self, asked)
                if not joins:
                    inputs.append(rows_of(asked.parsed))
            except Exception as error:  # noqa: BLE001 - every error has its answer
                self.fail(exchange, error)
                continue
            done.append(asked)
            if type(body) is Body:
                self._reply(exchange, body)
            else:
                exchange.reply(200, body, (), json)  # type: ignore[arg-type]
        return done, inputs

    def _guard(
        self, group: list[Asked], gate: Gate | None, ended: float, *, finite: bool
    ) -> tuple[list[Asked], list[bytes | Packed]]:
        """Have a look at each answer of a group before it is written; what is held back is logged apart."""
        done: list[Asked] = []
        inputs: list[bytes | Packed] = []
        for asked in group:
            exchange, parsed = asked.exchange, asked.parsed
            if exchange.settled or parsed.error is not None:
                turn_away(asked, gate)
                continue
            try:
                if not finite:
                    check_finite(asked, self.tally)
                sent = self.keeper.rows_of(parsed)
                seen, held = (asked, False) if gate is None else gate.answer(asked)
                body = seen.render(self, seen)
            except Exception as error:  # noqa: BLE001 - every error has its answer
                self.fail(exchange, error)
                if isinstance(error, Withheld):
                    log = self.log.apart() if error.apart else None
                    keep(self, [asked], [parsed.count], [sent], [asked.decoded], ended, log, refused=True)
                if gate is not None:
                    gate.forget([asked])
                continue
            if held:
                keep(self, [asked], [parsed.count], [sent], [asked.decoded], ended, self.log.apart())
            else:
                done.append(asked)
                inputs.append(sent)
            self._reply(exchange, body if isinstance(body, Body) else Body(body))
        return done, inputs

    def _reply(self, exchange: Exchange, body: Body) -> None:
        exchange.reply(200, body.data, body.headers, body.content_type + self._named)

    def finite(self, output: Array) -> bool:
        """Say that a model answered numbers only; of very large ones it may not, and then each is looked at."""
        least, _, _, high = self._bounds(output)
        return -inf < least and high < inf

    def _gate_for(self, group: list[Asked], output: Array | None) -> Gate | None:
        """Return the gate that looks at each answer of a group; none if all pass, which are finite then."""
        gate = self.gate
        return gate if gate is None or output is None or not gate.lets_pass(group, output) else None

    def warm(self) -> None:
        """Run the model, so that the first caller does not wait for it."""
        self.batcher.warm(self.validator.some())

    def attempt(self, parsed: Parsed) -> list[list[float]]:
        """Return what the model answers to one request that nobody made; in any thread, and nothing is logged.

        Raises:
            HttpError: The rows do not fit the signature.
        """
        rows = self.batcher.attempt(parsed, self.validator.fit if self.gate is None else self.gate.attempt)
        decode_rows(rows, self.problem, self.labels)
        return rows

    def stats(self) -> dict[str, Any]:
        """Return the server's counters."""
        return {
            "endpoint": self.endpoint,
            "model": self.version.digest,
            "runtime": self.runtime,
            "seconds": self.clock() - self._began,
            "answered": self.answered,
            "rows": self.rows,
            "runs": self.batcher.runs,
            "logged": self.log.logged,
            "waiting": self.log.waiting,
            "waited": self.log.waited,
            "trouble": bool(self.log.trouble),
        }

    def close(self) -> None:
        """Stop the model's thread, and let go of the model."""
        self.closed = True
        if self.gate is not None:
            self.gate.close()
        self.batcher.close()
