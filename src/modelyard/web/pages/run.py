"""A run: its steps as a graph and in time, what they gave, and where it went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from modelyard._kit.errors import NotFound
from modelyard._kit.text import plural, seconds_text
from modelyard.records import Plan, Prices, Run, StepRun
from modelyard.web.answer import answer
from modelyard.web.pages.failure import AttemptRow, Facts, FailureRow, attempt_rows, facts_of, failure_of
from modelyard.web.pages.fires import FireRow, fire_row
from modelyard.web.pages.given import Given, given_by, together
from modelyard.web.pages.parts import CheckRow, RunRow, check_rows, counts_text, run_row
from modelyard.web.pages.path import Leg, Span, critical, shortest
from modelyard.web.query import Query
from modelyard.web.reader import Reader
from modelyard.web.words import brief

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["RunPage", "StepRow", "find_run", "load", "plan_of", "view"]

_MOST_GIVEN = 6
_TIMED = ("succeeded", "failed", "running")
# Seconds in the queue that are worth a word in the graph.
_WORTH = 0.1
_DETAIL = {"never": "not run"}


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of a run.

    Attributes:
        name: Its name.
        about: One line on what it does, from the plan.
        status: `waiting`, `running`, `succeeded`, `cached`, `failed`, `skipped` or `interrupted`; `never` if the run
            ended before it.
        offset: Seconds from the start of the run to the start of its first attempt; none if it has not begun.
        seconds: Wall time of its last attempt, up to now while it runs.
        cpu_seconds: CPU time of all attempts.
        peak_bytes: Highest memory.
        read_bytes: Bytes read from disks.
        written_bytes: Bytes written to disks.
        cost: What all its attempts cost; none without prices.
        attempts: The attempts before the last one.
        reason: Why it was skipped.
        notes: What was done otherwise than asked.
        on_path: Whether the length of the run was made of it.
        needs: Names of the steps it takes something from.
        given: What it gave, the first few.
        more: Values it gave beyond those.
        error: Code, message, place and hint of a failed step.
    """

    name: str
    about: str
    status: str
    offset: float | None
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    read_bytes: int
    written_bytes: int
    cost: float | None
    attempts: tuple[AttemptRow, ...]
    reason: str
    notes: tuple[str, ...]
    on_path: bool
    needs: tuple[str, ...]
    given: tuple[Given, ...]
    more: int
    error: dict[str, str]

    @property
    def whole(self) -> float:
        """Seconds of all attempts and of the waits between them."""
        return sum(one.seconds + one.waits for one in self.attempts) + self.seconds


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run.

    Attributes:
        title: Title of the page.
        run: The run as a row.
        ended: Seconds since 1970 UTC, 0 while it runs.
        result: Digest over what it made; equal work has an equal digest.
        plan: Digest of its plan.
        steps: Its steps in the order of the plan, those not begun included.
        span: Seconds that the bars of the steps stand for.
        cpu_seconds: CPU time of all steps.
        peak_bytes: Highest memory of any step.
        cost: What all steps cost; none without prices.
        currency: In what.
        fire: What asked for it; none for a run that a person started.
        trace: Id that ties it to its fire, log lines, alerts and requests.
        failures: Steps that failed, with the likely cause.
        path: The chain of steps that its length was made of.
        bottleneck: What it mostly waited for, in a sentence; empty while it cannot be told.
        saved: Seconds that the cached steps took when they ran.
        checks: What its checks came to, failed ones first.
        counts: Checks by status.
        graph: The steps and what follows what, as SVG; empty without a plan.
        live: Whether it is running.
        has_card: Whether it made a card.
        newer: Id of the next run; empty for the newest.
        older: Id of the run before; empty for the first.
    """

    title: str
    run: RunRow
    ended: float
    result: str
    plan: str
    steps: tuple[StepRow, ...]
    span: float
    cpu_seconds: float
    peak_bytes: int
    cost: float | None
    currency: str
    fire: FireRow | None
    trace: str
    failures: tuple[FailureRow, ...]
    path: tuple[Leg, ...]
    bottleneck: str
    saved: float
    checks: tuple[CheckRow, ...]
    counts: dict[str, int]
    graph: str
    live: bool
    has_card: bool
    newer: str
    older: str


def load(store: Reader, query: Query) -> RunPage:
    """Read one run.

    Raises:
        NotFound: There is no such run.
    """
    run = find_run(store, query.text("run"))
    catalog = store.catalog()
    row = run_row(store, run, catalog.tallies.get(run.id))
    live = row.status == "running"
    plan, facts = plan_of(store, run), facts_of(store, run.id)
    path = critical(_spans(run, plan), run.started) if plan and not live else ()
    rows = _step_rows(store, run, plan, facts, {leg.name for leg in path}, live=live)
    checks = check_rows(run, catalog)
    ids = sorted(catalog.tallies)
    at = ids.index(run.id) if run.id in catalog.tallies else len(ids)
    fire = store.ledger.fire(run.fire) if run.fire else None
    failures = (failure_of(store, run, step) for step in run.steps)
    priced = facts.prices != Prices()
    return RunPage(
        title=run.id,
        run=row,
        ended=run.ended,
        result=run.result,
        plan=run.plan,
        steps=rows,
        span=max([row.seconds, *((s.offset or 0.0) + s.whole for s in rows)], default=0.0) or 1.0,
        cpu_seconds=sum(s.cpu_seconds for s in rows),
        peak_bytes=max((s.peak_bytes for s in rows), default=0),
        cost=sum(s.cost or 0.0 for s in rows) if priced else None,
        currency=facts.prices.currency if priced else "",
        fire=fire_row(fire) if fire else None,
        trace=run.trace,
        failures=tuple(one for one in failures if one),
        path=path,
        bottleneck=_bottleneck(path),
        saved=facts.saved,
        checks=checks,
        counts=counts_text(checks),
        graph=_graph(rows, run.id, path),
        live=live,
        has_card=run.id in catalog.cards,
        newer=next(iter(ids[at + 1 : at + 2]), ""),
        older=ids[at - 1] if at > 0 else "",
    )


def find_run(store: Reader, run_id: str) -> Run:
    """Return a run with its steps; `latest` is the newest.

    Raises:
        NotFound: There is none; the near ids are in the hint.
    """
    if run_id == "latest":
        newest = store.ledger.runs(limit=1)
        run_id = newest[0].id if newest else run_id
    run = store.ledger.run(run_id)
    if run is None:
        raise NotFound.of("run", run_id, reversed([one.id for one in store.ledger.runs(limit=200)]))
    return run


def plan_of(store: Reader, run: Run) -> Plan | None:
    """Return the plan of a run, or none where its blob is gone or of a later form."""
    if not run.plan:
        return None
    try:
        return msgspec.json.decode(store.blobs.get(run.plan), type=Plan)
    except (NotFound, msgspec.ValidationError, msgspec.DecodeError):
        return None


def _step_rows(
    store: Reader, run: Run, plan: Plan | None, facts: Facts, on_path: set[str], *, live: bool
) -> tuple[StepRow, ...]:
    done = {step.name: step for step in run.steps}
    planned = {step.name: step for step in plan.steps} if plan else {}
    rows = []
    for name in [*planned, *(n for n in done if n not in planned)]:
        step, about = done.get(name), planned[name].about if name in planned else ""
        needs = planned[name].upstream if name in planned else ()
        if step is None:
            step = StepRun(name=name, status="running")
            status, offset, seconds, given = "waiting" if live else "never", None, 0.0, list[Given]()
        else:
            given = together(given_by(step, run.id), name, run.id)
            seconds = max(0.0, store.clock() - step.started) if step.status == "running" and live else step.seconds
            status = "interrupted" if step.status == "running" and not live else step.status
            offset = None if status == "skipped" else max(0.0, _begin(step) - run.started)
        used = step.used
        rows.append(
            StepRow(
                name=name,
                about=about,
                status=status,
                offset=offset,
                seconds=seconds,
                cpu_seconds=used.cpu_seconds or step.cpu_seconds,
                peak_bytes=used.peak_bytes,
                read_bytes=used.read_bytes,
                written_bytes=used.written_bytes,
                cost=facts.prices.of(used) if facts.prices != Prices() else None,
                attempts=attempt_rows(step.attempts),
                reason=step.reason,
                notes=facts.notes.get(name, ()),
                on_path=name in on_path,
                needs=needs,
                given=tuple(given[:_MOST_GIVEN]),
                more=max(0, len(given) - _MOST_GIVEN),
                error={k: str(v) for k, v in step.error.items() if k in ("code", "message", "where", "hint")},
            )
        )
    return tuple(rows)


def _begin(step: StepRun) -> float:
    first = step.attempts[0] if step.attempts else None
    return first.time - first.seconds if first else step.started


def _spans(run: Run, plan: Plan) -> list[Span]:
    done = {step.name: step for step in run.steps if step.status in ("succeeded", "cached", "failed")}
    return [
        Span(one.name, _begin(step), step.started + step.seconds, one.upstream)
        for one in plan.steps
        if (step := done.get(one.name)) is not None
    ]


def _bottleneck(path: tuple[Leg, ...]) -> str:
    """Say what the critical path mostly consists of: a step, or waiting until there was room for one."""
    ran, waited = sum(leg.ran for leg in path), sum(leg.waited for leg in path)
    if ran <= 0 or sum(leg.ran > 0 for leg in path) < 2:
        return ""
    worst, whole = max(path, key=lambda leg: leg.ran), ran + waited
    text = f"`{worst.name}` is {worst.share * 100:.0f} % of the critical path"
    if waited > worst.ran:
        # More workers would help more than a quicker step.
        first = f"waiting for a turn is {waited / whole * 100:.0f} % of the critical path"
        return f"{first} ({seconds_text(waited)} of {seconds_text(whole)}), `{worst.name}` is {worst.share * 100:.0f} %"
    text += f" ({seconds_text(worst.ran)} of {seconds_text(whole)})"
    return f"{text}; steps on it waited {seconds_text(waited)} for their turn" if waited >= 0.01 * ran else text


def _graph(rows: tuple[StepRow, ...], run_id: str, path: tuple[Leg, ...]) -> str:
    if not any(row.needs for row in rows):
        return ""
    from modelyard.cards.charts import graph
    from modelyard.cards.charts.base import escape

    legs = {leg.name: leg for leg in path}
    nodes = [
        {
            "id": row.name,
            "label": row.name,
            "status": row.status,
            "detail": _detail(row, legs.get(row.name)),
            "href": f"/runs/{run_id}/step?step={quote(row.name)}",
        }
        for row in rows
    ]
    drawn = graph.draw(nodes, shortest({row.name: row.needs for row in rows}), align="start")
    # The drawing names each node and edge, so what is on the path can be told by class; the style sheet does the rest.
    names = [escape(leg.name) for leg in path if leg.ran > 0 or leg.waited > 0]
    for name in names:
        drawn = drawn.replace(f'<g class="node" data-id="{name}"', f'<g class="node critical" data-id="{name}"')
    for a, b in pairwise(names):
        edge = f'data-from="{a}" data-to="{b}"'
        drawn = drawn.replace(f"<path {edge}", f'<path class="critical" {edge}')
    return drawn


def _detail(row: StepRow, leg: Leg | None) -> str:
    if row.status not in _TIMED:
        return _DETAIL.get(row.status, row.status)
    if row.attempts:
        return f"{brief(row.whole)}, {plural(len(row.attempts) + 1, 'attempt')}"
    if leg and leg.waited >= _WORTH:
        return f"{brief(row.seconds)}, waited {brief(leg.waited)}"
    return seconds_text(row.seconds)


async def view(request: Request) -> Response:
    """Answer `/runs/{run}`."""
    return await answer(request, load, "run.html")
