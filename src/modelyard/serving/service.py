"""One model at work: what every protocol asks of it, whatever its bytes look like."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import Clock, system_clock
from modelyard.inference import Bundle
from modelyard.inference.decode import Label, decode
from modelyard.records import Problem
from modelyard.serving.batch import Batcher
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
        clock: Source of the time.

    Attributes:
        draining: The server ends: what is under way is answered, nothing new is taken.
        answered: Requests answered.
        rows: Rows answered.
        refused: Error code -> requests refused with it.
    """

    def __init__(
        self, bundle: Bundle, endpoint: str, log: RequestLog, limits: Limits, *, clock: Clock = system_clock
    ) -> None:
        self.endpoint = endpoint
        self.version = bundle.version
        self.problem = bundle.signature.problem
        self.labels = bundle.labels or self.problem.classes
        self.validator = Validator(bundle.signature, rows=limits.rows)
        self.log = log
        self.limits = limits
        self.clock = clock
        self.draining = False
        self.answered = 0
        self.rows = 0
        self.refused: Counter[str] = Counter()
        self._batcher = Batcher(bundle.predictor())
        self._began = clock()

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be answered and logged."""
        return not self.draining and not self.log.trouble

    async def answer(self, parsed: Parsed, request_id: str, caller: str) -> Answer:
        """Return the model's answer to rows that fit, and log it.

        Raises:
            HttpError: The log is full (503).
        """
        if not await self.log.room(self.limits.backlog_seconds):
            raise HttpError(
                503,
                "log-full",
                "the server cannot keep up with its records; try again",
                headers=((b"retry-after", b"5"),),
            )
        began = time.perf_counter()
        output = await self._batcher.predict(parsed.feeds, parsed.count)
        ms = (time.perf_counter() - began) * 1000

        answer = Answer(output, self.problem, self.labels)

        def content() -> list[tuple[Any, Any]]:
            return list(zip(self.validator.rows_of(parsed), answer.decoded, strict=True))

        self.log.put(Entry(request_id, self.clock(), self.version.digest, caller, parsed.count, ms, content))
        self.answered += 1
        self.rows += parsed.count
        return answer

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
