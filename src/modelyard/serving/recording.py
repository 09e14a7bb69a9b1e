"""Count and log what a version has answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard.serving.asked import Asked
from modelyard.serving.observability.log import RequestLog
from modelyard.store.requests import Inputs, Outputs, Turn

if TYPE_CHECKING:
    from modelyard.serving.service import Service

__all__ = ["keep", "record"]


def keep(
    service: Service,
    done: list[Asked],
    counts: list[int],
    inputs: Inputs,
    outputs: Outputs,
    ended: float,
    apart: RequestLog | None = None,
    *,
    refused: bool = False,
) -> list[float]:
    """Record requests, and return the milliseconds that each took.

    Args:
        service: What answered them.
        done: The requests.
        counts: Rows of each.
        inputs: The rows.
        outputs: The answers.
        ended: When the model had answered, of the monotonic clock.
        apart: Where they are written instead of the log.
        refused: The answer is held back: it is counted as that already.
    """
    exchanges = [one.exchange for one in done]
    took = [(ended - one.began) * 1000 for one in exchanges]
    heads = [one.head for one in exchanges]
    ids, callers = [one.id for one in exchanges], [head.caller for head in heads]
    keys = [one.key for one in exchanges] if service.watch is not None else []
    if refused:
        _write(service, Turn(*_made(service), ids, callers, took, counts, inputs, outputs, keys), apart)
        service.log.refused += sum(counts)
        return took
    record(service, ids, callers, [head.route for head in heads], took, counts, inputs, outputs, keys, apart)
    if service.access is not None:
        digest, held = service.version.digest, apart is not None
        for exchange, ms, count in zip(exchanges, took, counts, strict=True):
            service.access.add(exchange, 200, ms, rows=count, version=digest, held=held)
    return took


def record(
    service: Service,
    ids: list[str],
    callers: list[str],
    routes: list[Any],
    took: list[float],
    counts: list[int],
    inputs: Inputs,
    outputs: Outputs,
    keys: Sequence[str | None] = (),
    apart: RequestLog | None = None,
) -> None:
    """Count and log requests that were answered.

    Args:
        service: What answered them.
        ids: Their ids.
        callers: Who asked.
        routes: By which route.
        took: Milliseconds that each took.
        counts: Rows of each.
        inputs: The rows.
        outputs: The answers.
        keys: Digest of the key by which the version of each was drawn, while two are compared.
        apart: Where they are written instead of the log.
    """
    _write(service, Turn(*_made(service), ids, callers, took, counts, inputs, outputs, list(keys)), apart)
    service.answered += len(ids)
    service.rows += sum(counts)
    service.tally.add(routes, took)


def _made(service: Service) -> tuple[float, str, str]:
    """Return when something is answered now, by what, and what ties it to the deployment."""
    service.last = now = service.clock()
    return now, service.version.digest, service.trace


def _write(service: Service, turn: Turn, apart: RequestLog | None) -> None:
    rows = sum(turn.counts)
    if service.keeper.all or apart is not None:
        (apart or service.log).put(turn, rows)
        return
    some = turn.only([service.keeper.keeps() for _ in turn.ids])
    kept = sum(some.counts)
    service.log.passed += rows - kept
    if kept:
        service.log.put(some, kept)
