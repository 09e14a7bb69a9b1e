"""One model at work: what every protocol asks of it, whatever its bytes look like."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import Clock, system_clock
from modelyard.inference import Bundle
from modelyard.inference.decode import Label, decode
from modelyard.records import Problem
from modelyard.serving.batch import Batcher
from modelyard.serving.connection import Exchange, fail
from modelyard.serving.errors import HttpError
from modelyard.serving.limits import Limits
from modelyard.serving.log import Entry, RequestLog
from modelyard.serving.validate import Parsed, Validator

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Answer", "Service"]


class Answer:
    """What the model said.

    Args:
        output: float32, rows x classes or rows x 1.
        problem: What was learned.
        labels: The classes in the type they had in training.
    """

    def __init__(self, output: np.ndarray[Any, Any], problem: Problem, labels: Sequence[Label]) -> None:
        self.output = output
        self._problem = problem
        self._labels = labels

    @cached_property
    def decoded(self) -> list[dict[str, Any]]:
        """One answer a row: `prediction`, and for a classifier `probabilities`; made once, whoever asks first."""
        return decode(self.output, self._problem, self._labels)


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
        answered: Requests answered.
        rows: Rows answered.
        refused: Error code -> requests refused with it.
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
        self.problem = bundle.signature.problem
        self.trace = trace
        self._digest = bundle.version.digest
        self.labels = bundle.labels or self.problem.classes
        self.validator = Validator(bundle.signature, rows=limits.rows)
        self.log = log
        self.limits = limits
        self.clock = clock
        self.draining = False
        self.answered = 0
        self.rows = 0
        self.refused: Counter[str] = Counter()
        self._batcher = Batcher(bundle.predictor(), self.validator.fit)
        self._parked = 0
        self._began = clock()

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered and logged."""
        return not self.draining and not self.log.trouble

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return self._batcher.waiting + self._parked

    def ask(self, exchange: Exchange, parsed: Parsed, render: Callable[[Answer], bytes]) -> None:
        """Have the model answer rows that fit, log the answer and write it.

        Args:
            exchange: Whose rows they are; refused (503) if the log is full and stays so.
            parsed: The rows.
            render: Makes the body of the answer.
        """
        if not self.log.full:
            self._ask(exchange, parsed, render)
            return
        self._parked += 1
        self.log.waited += 1
        self._park(exchange, parsed, render, time.monotonic() + self.limits.backlog_seconds)

    def _park(self, exchange: Exchange, parsed: Parsed, render: Callable[[Answer], bytes], until: float) -> None:
        """Wait for room in the log: an answer that could not be recorded is not given."""
        if self.log.full and time.monotonic() < until:
            asyncio.get_running_loop().call_later(0.01, self._park, exchange, parsed, render, until)
            return
        self._parked -= 1
        if self.log.full:
            message = "the server cannot keep up with its records; try again"
            exchange.refuse(HttpError(503, "log-full", message, headers=((b"retry-after", b"5"),)))
        else:
            self._ask(exchange, parsed, render)

    def _ask(self, exchange: Exchange, parsed: Parsed, render: Callable[[Answer], bytes]) -> None:
        began = time.perf_counter()

        def done(output: np.ndarray[Any, Any] | BaseException) -> None:
            try:
                if isinstance(output, BaseException):
                    raise output
                answer = Answer(output, self.problem, self.labels)
                body = render(answer)
            except Exception as error:  # noqa: BLE001 - every error has its answer
                fail(exchange, error)
                return
            ms = (time.perf_counter() - began) * 1000

            def content() -> tuple[list[Any], list[Any]]:
                return self.validator.rows_of(parsed), answer.decoded

            now = self.clock()
            self.log.put(Entry(exchange.id, now, self._digest, exchange.caller, parsed.count, ms, self.trace, content))
            self.answered += 1
            self.rows += parsed.count
            exchange.reply(200, body)

        self._batcher.ask(parsed, done)

    def warm(self) -> None:
        """Run the model once, so that the first caller does not wait for it."""
        import numpy as np

        feeds: dict[str, np.ndarray[Any, Any]] = {}
        if self.validator.numbers:
            feeds["numeric"] = np.zeros((1, len(self.validator.numbers)), np.float32)
        if self.validator.categories:
            feeds["categorical"] = np.full((1, len(self.validator.categories)), "", object)
        self._batcher.warm(feeds)

    def stats(self) -> dict[str, Any]:
        """Return the server's counters."""
        return {
            "endpoint": self.endpoint,
            "model": self.version.digest,
            "seconds": self.clock() - self._began,
            "answered": self.answered,
            "rows": self.rows,
            "refused": dict(self.refused),
            "runs": self._batcher.runs,
            "logged": self.log.logged,
            "waiting": self.log.waiting,
            "waited": self.log.waited,
            "trouble": bool(self.log.trouble),
        }

    def close(self) -> None:
        """Stop the model's thread."""
        self._batcher.close()
