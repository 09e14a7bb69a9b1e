"""Let a version answer rows of its own profile before anybody asks it: what fails here never goes live."""

from __future__ import annotations

import math
import time

from modelyard._kit.digest import short
from modelyard._kit.errors import ServeError
from modelyard.records import Feature
from modelyard.serving.columns import Columns
from modelyard.serving.parsed import Parsed
from modelyard.serving.service import Service

__all__ = ["rehearse", "rows_of"]

# Answers of which the slowest of a hundred is taken, and attempts: what else the machine does must not decide.
_RUNS, _ATTEMPTS = 200, 3
# Answers that only warm up.
_FIRST = 5


def rows_of(columns: Columns, count: int = 16) -> list[Parsed]:
    """Return requests of one row each, spread over what was seen of every column in training."""
    import numpy as np

    found = []
    for at in range(count):
        numbers = [_number(f, at / max(count - 1, 1)) for f in columns.numbers]
        texts = [f.categories[at % len(f.categories)] if f.categories else "" for f in columns.categories]
        numeric = np.array([numbers], np.float64) if numbers else None
        found.append(Parsed.of(numeric, np.array([texts], object) if texts else None))
    return found


def rehearse(service: Service, *, p99: float = 0.0) -> float:
    """Have a version answer, and return the seconds within which 99 of 100 answers were made.

    Args:
        service: A version that does not answer callers yet.
        p99: Seconds that it may take for that; 0 means any.

    Raises:
        ServeError: An answer is not finite, or takes too long (`rehearsal-failed`).
    """
    asked = rows_of(service.validator.columns)
    took = math.inf
    # Where no time was declared, each row is asked once.
    runs = _RUNS if p99 else len(asked)
    for _ in range(_ATTEMPTS):
        took = min(took, _round(service, asked, runs))
        if not p99 or took <= p99:
            return took
    raise _failed(service, f"99 of 100 answers take up to {took * 1000:.1f} ms, and {p99 * 1000:.1f} ms were declared")


def _round(service: Service, asked: list[Parsed], runs: int) -> float:
    seconds = []
    for at in range(_FIRST + runs):
        began = time.perf_counter()
        try:
            rows = service.attempt(asked[at % len(asked)])
        except Exception as error:
            raise _failed(service, f"it cannot answer a row of its own profile: {type(error).__name__}") from error
        seconds.append(time.perf_counter() - began)
        if not all(math.isfinite(number) for row in rows for number in row):
            raise _failed(service, "an answer to a row of its own profile is not a finite number")
    return sorted(seconds[_FIRST:])[math.ceil(0.99 * runs) - 1]


def _failed(service: Service, why: str) -> ServeError:
    return ServeError(
        "rehearsal-failed",
        f"model `{short(service.version.digest)}` does not go live: {why}",
        hint="the version before it goes on answering; `modelyard rollback` points the alias back at it",
    )


def _number(feature: Feature, share: float) -> float:
    low = feature.low if feature.low is not None else 0.0
    high = feature.high if feature.high is not None else low + 1.0
    value = low + (high - low) * share
    return float(round(value)) if feature.source.startswith(("Int", "UInt")) else value
