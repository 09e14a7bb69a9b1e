"""A run: its steps as a graph and in time, what they gave, and where it went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from modelyard._kit.errors import NotFound
from modelyard._kit.text import number, seconds_text
from modelyard.records import (
    Candidate,
    Card,
    CheckResult,
    Deployment,
    Evidence,
    ModelVersion,
    Plan,
    Run,
    StepRun,
    TableVersion,
)
from modelyard.web.answer import answer
from modelyard.web.pages.parts import UNMET, CheckRow, RunRow, check_rows, counts_text, look, measured, run_row
from modelyard.web.query import Query
from modelyard.web.reader import Reader, values_in

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Given", "RunPage", "StepRow", "find_run", "given_by", "load", "plan_of", "shortest", "view"]

_MOST_GIVEN = 6
_MOST_RESULTS = 2
_TIMED = ("succeeded", "failed", "running")
_DETAIL = {"never": "not run"}


@dataclass(frozen=True, slots=True)
class Given:
    """One value that a step gave, as a link or a few words.

    Attributes:
        output: Name of the output.
        kind: `table`, `model`, `check_result`, `card`, ... or `json`.
        text: What to show.
        href: Where it is shown in full; empty if only on the step's own page.
        status: Status of a check; empty otherwise.
    """

    output: str
    kind: str
    text: str
    href: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of a run.

    Attributes:
        name: Its name.
        about: One line on what it does, from the plan.
        status: `waiting`, `running`, `succeeded`, `cached`, `failed` or `interrupted`; `never` if the run ended
            before it.
        offset: Seconds from the start of the run to its start; none if it has not begun.
        seconds: Wall time, up to now while it runs.
        cpu_seconds: CPU time.
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
    needs: tuple[str, ...]
    given: tuple[Given, ...]
    more: int
    error: dict[str, str]


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
    plan = plan_of(store, run)
    rows = _step_rows(store, run, plan, live=row.status == "running")
    checks = check_rows(run, catalog)
    ids = sorted(catalog.tallies)
    at = ids.index(run.id) if run.id in catalog.tallies else len(ids)
    return RunPage(
        title=run.id,
        run=row,
        ended=run.ended,
        result=run.result,
        plan=run.plan,
        steps=rows,
        span=max([row.seconds, *((s.offset or 0.0) + s.seconds for s in rows)], default=0.0) or 1.0,
        cpu_seconds=sum(s.cpu_seconds for s in rows),
        saved=_saved(store, run.id),
        checks=checks,
        counts=counts_text(checks),
        graph=_graph(rows, run.id),
        live=row.status == "running",
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


def given_by(step: StepRun, run_id: str) -> list[Given]:
    """Return what a step gave, each with the page that shows it."""
    given = [_given(output, value, run_id) for output, value in values_in(step.outputs)]
    # A list of plain JSON is one thing to a reader.
    return list({(one if one.kind != "json" else (one.output, one.kind)): one for one in given}.values())


def _given(output: str, value: Any, run_id: str) -> Given:
    match value:
        case TableVersion():
            return Given(output, "table", f"{value.rows:,} rows", f"/tables/{value.name}/{value.digest}")
        case ModelVersion():
            return Given(output, "model", value.family, f"/models/{value.digest}")
        case CheckResult():
            name = value.check.name
            shown = look(value.check.type, value.status, blocking=value.check.blocking)
            return Given(output, "check_result", name, f"/checks?run={run_id}#check-{name}", shown)
        case Card():
            return Given(output, "card", "model card", f"/cards/{run_id}")
        case Deployment():
            text = f"{value.endpoint}: {value.alias} revision {value.revision}"
            return Given(output, "deployment", text, f"/models/{value.model.digest}")
        case Candidate():
            return Given(output, "candidate", f"{value.family} {number(value.mean) if value.scores else 'is out'}")
        case Evidence():
            return Given(output, "evidence", f"{value.measure} {measured(value.value, value.unit)}")
        case msgspec.Struct():
            return Given(output, str(value.__struct_config__.tag), output)
        case _:
            return Given(output, "json", output)


def _together(given: list[Given], step: str, run_id: str) -> list[Given]:
    """Return what a step gave with its results as one link where there are more than a few, as of a data contract."""
    results = [one for one in given if one.kind == "check_result"]
    if len(results) <= _MOST_RESULTS:
        return given
    unmet = sum(one.status in UNMET for one in results)
    aside = sum(one.status == "aside" for one in results)
    text = f"{len(results)} results"
    text += f", {unmet} not met" if unmet else f", {aside} set rows aside" if aside else ""
    status = "failed" if unmet else "aside" if aside else "passed"
    link = Given("results", "check_result", text, f"/checks?run={run_id}&q={quote(step)}", status)
    return [*(one for one in given if one.kind != "check_result"), link]


def _step_rows(store: Reader, run: Run, plan: Plan | None, *, live: bool) -> tuple[StepRow, ...]:
    done = {step.name: step for step in run.steps}
    planned = {step.name: step for step in plan.steps} if plan else {}
    rows = []
    for name in [*planned, *(n for n in done if n not in planned)]:
        step, about = done.get(name), planned[name].about if name in planned else ""
        needs = planned[name].upstream if name in planned else ()
        if step is None:
            rows.append(StepRow(name, about, "waiting" if live else "never", None, 0.0, 0.0, needs, (), 0, {}))
            continue
        given = _together(given_by(step, run.id), name, run.id)
        seconds = max(0.0, store.clock() - step.started) if step.status == "running" and live else step.seconds
        status = "interrupted" if step.status == "running" and not live else step.status
        rows.append(
            StepRow(
                name=name,
                about=about,
                status=status,
                offset=max(0.0, step.started - run.started),
                seconds=seconds,
                cpu_seconds=step.cpu_seconds,
                needs=needs,
                given=tuple(given[:_MOST_GIVEN]),
                more=max(0, len(given) - _MOST_GIVEN),
                error={k: str(v) for k, v in step.error.items() if k in ("code", "message", "where", "hint")},
            )
        )
    return tuple(rows)


def _saved(store: Reader, run_id: str) -> float:
    cached = store.ledger.events(run=run_id, kinds=("step.cached",))
    return sum(float(event.payload.get("from_seconds", 0.0)) for event in cached)


def _graph(rows: tuple[StepRow, ...], run_id: str) -> str:
    if not any(row.needs for row in rows):
        return ""
    from modelyard.cards.charts import graph

    nodes = [
        {
            "id": row.name,
            "label": row.name,
            "status": row.status,
            "detail": seconds_text(row.seconds) if row.status in _TIMED else _DETAIL.get(row.status, row.status),
            "href": f"/runs/{run_id}/step?step={quote(row.name)}",
        }
        for row in rows
    ]
    return graph.draw(nodes, shortest({row.name: row.needs for row in rows}), align="start")


def shortest(needs: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """Return the edges between steps without those that a longer way says already.

    The split feeds every check, but each check also comes after the model that was trained on it: drawn as they stand,
    the edges of a whole plan hide its shape.

    Args:
        needs: Step -> steps it takes something from, in an order in which they may run.

    >>> shortest({"a": (), "b": ("a",), "c": ("a", "b")})
    [('a', 'b'), ('b', 'c')]
    """
    bit = {name: 1 << i for i, name in enumerate(needs)}
    before: dict[str, int] = {}
    edges = []
    for name, wanted in needs.items():
        direct = [one for one in wanted if one in before]
        implied = 0
        for one in direct:
            implied |= before[one]
        edges += [(one, name) for one in direct if not implied & bit[one]]
        before[name] = implied | sum(bit[one] for one in direct)
    return edges


async def view(request: Request) -> Response:
    """Answer `/runs/{run}`."""
    return await answer(request, load, "run.html")
