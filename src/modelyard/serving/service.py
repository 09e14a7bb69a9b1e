"""One model at work: what every protocol asks of it, whatever its bytes look like."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import Clock, system_clock
from modelyard.inference import Bundle
from modelyard.inference.decode import decode
from modelyard.serving.batch import Batcher
from modelyard.serving.errors import HttpError
from modelyard.serving.limits import Limits
from modelyard.serving.log import Entry, RequestLog
from modelyard.serving.validate import Parsed, Validator

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Service"]


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
        self.validator = Validator(bundle.signature)
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

    async def answer(self, parsed: Parsed, request_id: str, caller: str) -> np.ndarray[Any, Any]:
        """Return the model's output for rows that fit, and log it.

        Raises:
            HttpError: The log is full (503), or the model gave something that is no answer (500).
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

        def content() -> list[tuple[dict[str, Any], dict[str, Any]]]:
            outputs = decode(output, self.problem, self.labels)
            return list(zip(self.validator.rows_of(parsed), outputs, strict=True))

        self.log.put(Entry(request_id, self.clock(), self.version.digest, caller, parsed.count, ms, content))
        self.answered += 1
        self.rows += parsed.count
        return output

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
