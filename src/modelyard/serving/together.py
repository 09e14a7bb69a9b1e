"""Answer requests of one row each together, where nothing is to be said of any of them.

What `Service` decides and makes for each request comes out the same for all of these, and is decided and made once.
Where it may not, nothing has happened yet, and each of them is asked for by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from modelyard.inference.decode import labelled
from modelyard.serving.http.heads import Head
from modelyard.serving.outputs import packed
from modelyard.serving.parsed import Parsed
from modelyard.serving.recording import record
from modelyard.serving.validate import raw_rows
from modelyard.store.packed import Packed
from modelyard.store.requests import Inputs

if TYPE_CHECKING:
    from modelyard.serving.service import Service

__all__ = ["together"]

# Of many requests a function in C is quicker than a comprehension.
_callers = attrgetter("caller")


def together(
    service: Service, ids: list[str], heads: Sequence[Head], bodies: list[bytes], began: Sequence[float]
) -> list[bytes] | None:
    """Answer requests, of which it is known that the body alone says what is asked for.

    Args:
        service: The version that answers.
        ids: Their ids.
        heads: Their heads, all of one route.
        bodies: Their bodies.
        began: When each began, of the monotonic clock.

    Returns:
        The whole answers, which are counted and logged; none where not all can be answered so, and nothing is.
    """
    gate, count, batcher = service.gate, len(ids), service.batcher
    if not _alike(service) or not batcher.keeps_up(count) or (read := service.validator.alone(bodies)) is None:
        return None
    parsed, feeds = read
    inputs = _inputs(service, parsed, bodies)
    if inputs is None or (gate is not None and not gate.harmless(feeds)):
        return None
    start = time.monotonic()
    try:
        output = batcher.run(feeds)
    except Exception:  # noqa: BLE001 - asked for by itself, each is told what the model raises of it
        return None
    ended = time.monotonic()
    problem = service.problem
    sound = output.shape == (count, len(problem.classes) or 1)
    if not sound or not (service.finite(output) if gate is None else gate.clears(parsed, output)):
        return None
    batcher.ran(count, ended - start)
    callers = list(map(_callers, heads))
    if gate is not None:
        gate.note(callers, parsed)
    predictions = labelled(output, problem, service.labels) if problem.classes else []
    outputs = packed(output, problem, predictions)
    took = [(ended - one) * 1000 for one in began]
    # Before they are recorded: what cannot be written was not answered.
    answers = service.writer.alone(ids, predictions, output)
    record(service, ids, callers, [heads[0].route] * count, took, [1] * count, inputs, outputs)
    return answers


def _alike(service: Service) -> bool:
    """Whether all requests are treated alike just now: none is drawn for another version, told of or counted apart."""
    log = service.log
    return (
        service.validator.reads_alone
        and service.writer.writes_alone
        and service.keeper.whole
        and not (service.killed or service.draining or service.closed)
        and all(one is None for one in (service.rollout, service.watch, service.days, service.access))
        and not (log.tight and log.full)
    )


def _inputs(service: Service, parsed: Parsed, bodies: list[bytes]) -> Inputs | None:
    """Return the rows for the log; none where one has to be written anew for it."""
    if parsed.categories is None:
        return service.keeper.alone(parsed)
    rows: list[bytes | Packed] = [raw_rows(body, 1) for body in bodies]
    return rows if all(rows) else None
