"""A step of a run: what it was called with, what its key was made of, and everything it gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from modelyard._kit.errors import NotFound
from modelyard.records import Prices, Usage
from modelyard.security.redact import redact
from modelyard.web.answer import answer
from modelyard.web.pages.failure import AttemptRow, FailureRow, attempt_rows, facts_of, failure_of, last_lines
from modelyard.web.pages.given import Given, given_by
from modelyard.web.pages.parts import RunRow, run_row
from modelyard.web.pages.run import find_run, plan_of
from modelyard.web.query import Query
from modelyard.web.reader import Reader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["StepPage", "load", "view"]

_LONGEST = 24_000


@dataclass(frozen=True, slots=True)
class StepPage:
    """One step of one run.

    Attributes:
        title: Title of the page.
        run: The run it belongs to.
        name: Its name.
        about: One line on what it does.
        verb: Dotted path of its function.
        status: How it stands; `waiting` or `never` if it has not begun.
        started: Seconds since 1970 UTC; 0 if it has not begun.
        seconds: Wall time.
        cpu_seconds: CPU time of all attempts.
        usage: What all attempts used.
        cost: What that cost; none without prices.
        currency: In what.
        attempts: The attempts before the last one.
        reason: Why it was skipped.
        notes: What was done otherwise than asked.
        failure: Its error with the likely cause, the command to replay it and its last lines; none if it did not fail.
        log: The last lines that it logged or printed.
        inputs: Parameter -> outputs it takes, as `step` or `step#output`.
        feeds: Steps that take something from it.
        params: Its settings, as JSON.
        key: Its output key.
        made_of: Part of the key -> digest.
        given: Everything it gave, as links.
        outputs: Everything it gave, as JSON, cut at 24 kB.
        cut: Whether the JSON was cut.
        error: Code, message, place and hint of a failed step.
        trace: Its trace.
    """

    title: str
    run: RunRow
    name: str
    about: str
    verb: str
    status: str
    started: float
    seconds: float
    cpu_seconds: float
    usage: Usage
    cost: float | None
    currency: str
    attempts: tuple[AttemptRow, ...]
    reason: str
    notes: tuple[str, ...]
    failure: FailureRow | None
    log: tuple[str, ...]
    inputs: dict[str, tuple[str, ...]]
    feeds: tuple[str, ...]
    params: str
    key: str
    made_of: dict[str, str]
    given: tuple[Given, ...]
    outputs: str
    cut: bool
    error: dict[str, str]
    trace: str


def load(store: Reader, query: Query) -> StepPage:
    """Read one step of one run.

    Raises:
        NotFound: There is no such run, or no such step in it.
    """
    run, name = find_run(store, query.text("run")), query.text("step")
    plan = plan_of(store, run)
    planned = {step.name: step for step in plan.steps} if plan else {}
    done = {step.name: step for step in run.steps}
    if name not in done and name not in planned:
        raise NotFound.of("step", name, {*done, *planned})
    step, made = planned.get(name), done.get(name)
    row = run_row(store, run, store.catalog().tallies.get(run.id))
    status = made.status if made else ("waiting" if row.status == "running" else "never")
    outputs = msgspec.json.format(msgspec.json.encode(made.outputs), indent=2).decode() if made else ""
    refs = {key: (ref,) if isinstance(ref, str) else tuple(ref) for key, ref in step.inputs.items()} if step else {}
    facts = facts_of(store, run.id)
    used = made.used if made else Usage()
    failure = failure_of(store, run, made) if made else None
    log = last_lines(store, run, made) if made and made.started else ()
    priced = facts.prices != Prices()
    return StepPage(
        title=name,
        run=row,
        name=name,
        about=step.about if step else "",
        verb=step.verb if step else "",
        status="interrupted" if status == "running" and row.status != "running" else status,
        started=made.started if made else 0.0,
        seconds=made.seconds if made else 0.0,
        cpu_seconds=used.cpu_seconds or (made.cpu_seconds if made else 0.0),
        usage=used,
        cost=facts.prices.of(used) if priced else None,
        currency=facts.prices.currency if priced else "",
        attempts=attempt_rows(made.attempts) if made else (),
        reason=made.reason if made else "",
        notes=facts.notes.get(name, ()),
        failure=failure,
        log=log or (failure.log if failure else ()),
        inputs=refs,
        feeds=tuple(other.name for other in planned.values() if name in other.upstream),
        params=msgspec.json.format(msgspec.json.encode(step.params), indent=2).decode() if step else "",
        key=made.key if made else "",
        made_of=made.made_of if made else {},
        given=tuple(given_by(made, run.id)) if made else (),
        outputs=outputs[:_LONGEST],
        cut=len(outputs) > _LONGEST,
        error={k: str(v) for k, v in made.error.items() if k in ("code", "message", "where", "hint")} if made else {},
        trace=redact(str(made.error.get("trace", ""))[-_LONGEST:]) if made else "",
    )


async def view(request: Request) -> Response:
    """Answer `/runs/{run}/steps/{step}`."""
    return await answer(request, load, "step.html")
