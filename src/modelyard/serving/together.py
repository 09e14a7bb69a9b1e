"""Answer requests of one row each together, where nothing is to be said of any of them.

What `Service` decides and makes for each request comes out the same for all of these, and is decided and made once.
Where it may not, nothing has happened yet, and each of them is asked for by itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from modelyard.inference.decode import labelled
from modelyard.serving.http.heads import Head
from modelyard.serving.outputs import packed
from modelyard.serving.parsed import Parsed
from modelyard.serving.recording import record
from modelyard.serving.validate import raw_rows
from modelyard.store.packed import Packed
from modelyard.store.requests import Inputs, Outputs

if TYPE_CHECKING:
    from modelyard.serving.service import Service

__all__ = ["alike", "answer_together"]

# Of many requests a function in C is quicker than a comprehension.
_callers = attrgetter("caller")


@dataclass(slots=True)
class _Made:
    """What is answered to a group, before anybody is told or anything is counted."""

    rows: Parsed
    inputs: Inputs
    outputs: Outputs
    answers: list[bytes]
    ended: float


def answer_together(
    service: Service, ids: list[str], heads: Sequence[Head], bodies: list[bytes], began: Sequence[float]
) -> tuple[list[bytes], float] | None:
    """Answer requests, of which it is known that the body alone says what is asked for.

    Args:
        service: The version that answers.
        ids: Their ids.
        heads: Their heads, all of one route.
        bodies: Their bodies.
        began: When each began, of the monotonic clock.

    Returns:
        The whole answers, which are counted and logged, and the seconds until the model had answered; none where not
        all can be answered so, and nothing is.
    """
    start, count = time.monotonic(), len(ids)
    try:
        made = _made(service, ids, bodies) if alike(service) else None
    except Exception:  # noqa: BLE001 - asked for by itself, each is told what is wrong with it
        return None
    if made is None:
        return None
    callers = list(map(_callers, heads))
    took = [(made.ended - one) * 1000 for one in began]
    record(service, ids, callers, [heads[0].route] * count, took, [1] * count, made.inputs, made.outputs)
    seconds = made.ended - start
    service.batcher.ran(count, seconds)
    if service.gate is not None:
        service.gate.note(callers, made.rows)
    return made.answers, seconds


def alike(service: Service) -> bool:
    """Say that all requests are treated alike just now: none is drawn for another version, told of or counted apart.

    Whatever `Service.ask` or `Service._answered` looks at for each request has to be asked for here.
    """
    log = service.log
    return (
        service.validator.reads_alone
        and service.writer.writes_alone
        and service.keeper.whole
        and not (service.killed or service.draining or service.closed)
        and service.rollout is None
        and service.watch is None
        and service.days is None
        and service.access is None
        and not (log.tight and log.full)
    )


def _made(service: Service, ids: list[str], bodies: list[bytes]) -> _Made | None:
    """Return what is answered; none where something is to be said of a row or of an answer."""
    gate, problem = service.gate, service.problem
    read = service.validator.alone(bodies)
    if read is None:
        return None
    parsed, feeds = read
    if gate is not None and not gate.harmless(feeds):
        return None
    output = service.batcher.run(feeds)
    ended = time.monotonic()
    sound = output.shape == (len(ids), len(problem.classes) or 1)
    if not sound or not (service.finite(output) if gate is None else gate.clears(parsed, output)):
        return None
    predictions = labelled(output, problem, service.labels) if problem.classes else []
    answers = service.writer.alone(ids, predictions, output)
    return _Made(parsed, _inputs(service, parsed, bodies), packed(output, problem, predictions), answers, ended)


def _inputs(service: Service, parsed: Parsed, bodies: list[bytes]) -> Inputs:
    """Return the rows for the log."""
    keeper, texts = service.keeper, parsed.categories
    if texts is None:
        return keeper.alone(parsed)
    rows: list[bytes | Packed] = [raw_rows(body, 1) for body in bodies]
    if not all(rows):
        width = len(parsed.packed or b"") // parsed.count
        for at in [at for at, row in enumerate(rows) if not row]:
            numbers = None if parsed.packed is None else parsed.packed[at * width : (at + 1) * width]
            rows[at] = keeper.rows_of(Parsed(1, numbers, texts[at : at + 1]))
    return rows
