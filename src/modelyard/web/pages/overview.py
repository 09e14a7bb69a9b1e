"""The overview: what answers, whether the gate holds, how the last run went, how far data moved, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.records import ModelVersion, Run, TableVersion
from modelyard.web.answer import answer
from modelyard.web.pages.attention import Attention, attention
from modelyard.web.pages.cards import card_of
from modelyard.web.pages.models import Move, moves
from modelyard.web.pages.monitoring import Watched, watched
from modelyard.web.pages.parts import (
    UNMET,
    CheckRow,
    RunRow,
    TableLink,
    check_rows,
    counts_text,
    is_quarantine,
    latest_run,
    run_row,
)
from modelyard.web.pages.triggers import TriggerRow, board_of, daemon_rows
from modelyard.web.query import Query
from modelyard.web.reader import Catalog, Made, Reader, values_in

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Champion", "Contract", "Gate", "NextStep", "OverviewPage", "load", "view"]

_RUNS = 8
_CHECKS = 12
_MOVES = 5
_TRIGGERS = 6


@dataclass(frozen=True, slots=True)
class Champion:
    """The model that answers.

    Attributes:
        endpoint: Name of the endpoint.
        digest: Digest of the model.
        family: Its family.
        revision: How often the alias has moved.
        reason: Why it moved here.
        score: Its value of the metric it was selected by, as text; empty if not known.
        more: Other endpoints that have a champion.
    """

    endpoint: str
    digest: str
    family: str
    revision: int
    reason: str
    score: str
    more: int


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether the claims of the newest run hold.

    Attributes:
        run: Id of the run.
        status: `passed`, `failed` or `insufficient`.
        passed: Blocking checks that hold.
        total: Blocking checks there were, without those that had nothing to compare with.
        failing: Names of the blocking checks that failed or had too few rows.
        reported: Names of the other checks of the model that did.
    """

    run: str
    status: str
    passed: int
    total: int
    failing: tuple[str, ...]
    reported: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """What the data contracts of the newest run came to.

    Attributes:
        rules: Rules there were.
        kept: Rules without a bad row.
        broken: Names of the others.
        aside: Tables that hold the rows that were set aside.
        rows: Rows that were set aside.
    """

    rules: int
    kept: int
    broken: tuple[str, ...]
    aside: tuple[TableLink, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class NextStep:
    """The one thing to do now.

    Attributes:
        tone: `calm`, `act` or `alarm`.
        title: What to do, in a few words.
        text: Why, in a sentence.
        command: The command that does it; empty if it is not a command.
        href: The page that says more; empty if none.
        link: Words of the link.
    """

    tone: str
    title: str
    text: str
    command: str = ""
    href: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """The project at one glance.

    Attributes:
        title: Title of the page.
        project: Name of the project; empty before the first run.
        champion: The model that answers; none while there is none.
        gate: Whether the claims hold; none while nothing was checked.
        last: The newest run; none before the first.
        drift: The newest watch of the champion's endpoint; none while nothing was watched.
        next: What to do now.
        attention: What needs somebody besides, what stops everything first.
        triggers: Up to 6 triggers: those whose next fire is known, soonest first, then the others.
        runs: The newest 8 runs.
        longest: Seconds of the longest of them, for the bars.
        checks: Up to 12 results about the model of the newest run that checked, failed ones first.
        counts: Its results by status, those of data contracts included.
        contract: What its data contracts came to; none without any.
        moves: The newest 5 moves of aliases.
        tables: Tables there are.
        models: Model versions there are.
        events: Events in the ledger.
        live: Whether the newest run is running.
        watched: Whether a daemon runs, so that something may happen at any time.
    """

    title: str
    project: str
    champion: Champion | None
    gate: Gate | None
    last: RunRow | None
    drift: Watched | None
    next: NextStep
    attention: tuple[Attention, ...]
    triggers: tuple[TriggerRow, ...]
    runs: tuple[RunRow, ...]
    longest: float
    checks: tuple[CheckRow, ...]
    counts: dict[str, int]
    contract: Contract | None
    moves: tuple[Move, ...]
    tables: int
    models: int
    events: int
    live: bool
    watched: bool


def load(store: Reader, query: Query) -> OverviewPage:
    """Read the overview."""
    catalog = store.catalog()
    runs = tuple(run_row(store, run, catalog.tallies.get(run.id)) for run in store.ledger.runs(limit=_RUNS))
    last = runs[0] if runs else None
    checked = latest_run(store, ended=True)
    checks = check_rows(checked, catalog) if checked else ()
    gate = _gate(checks, checked.id) if checked and checks else None
    champion = _champion(store, catalog)
    watches = watched(catalog)
    drift = next((one for one in watches if champion and one.endpoint == champion.endpoint), None)
    drift = drift or next(iter(watches), None)
    card = card_of(checked) if checked else None
    missing = card.missing if card else ()
    board, daemons = board_of(store), daemon_rows(store)
    triggers = sorted((row for row in board.rows if row.kind != "manual"), key=lambda row: row.next or float("inf"))
    return OverviewPage(
        title="Overview",
        project=last.project if last else "",
        champion=champion,
        gate=gate,
        last=last,
        drift=drift,
        next=_next(last, gate, champion, drift, missing),
        attention=attention(store, board, daemons),
        triggers=tuple(triggers[:_TRIGGERS]),
        runs=runs,
        longest=max((row.seconds for row in runs), default=0.0),
        checks=tuple(row for row in checks if row.type != "contract")[:_CHECKS],
        counts=counts_text(checks),
        contract=_contract(checked, checks) if checked else None,
        moves=moves(catalog, most=_MOVES),
        tables=len(catalog.tables),
        models=len(catalog.models),
        events=store.ledger.head()[0],
        live=bool(last and last.status == "running"),
        watched=any(one.status == "running" for one in daemons),
    )


def _gate(checks: tuple[CheckRow, ...], run: str) -> Gate:
    counted = [row for row in checks if row.status != "skipped" and row.blocking]
    blocking = [row for row in counted if row.status in UNMET]
    status = "passed"
    if blocking:
        status = "failed" if any(row.status == "failed" for row in blocking) else "insufficient"
    return Gate(
        run=run,
        status=status,
        passed=sum(row.status == "passed" for row in counted),
        total=len(counted),
        failing=tuple(row.name for row in blocking),
        reported=tuple(
            row.name for row in checks if row.status in UNMET and not row.blocking and row.type != "contract"
        ),
    )


def _contract(run: Run, checks: tuple[CheckRow, ...]) -> Contract | None:
    rules = [row for row in checks if row.type == "contract"]
    if not rules:
        return None
    broken = tuple(row.name for row in rules if row.status in UNMET)
    tables = [value for step in run.steps for _, value in values_in(step.outputs) if isinstance(value, TableVersion)]
    aside = [TableLink(one.name, one.digest, one.rows) for one in tables if one.rows and is_quarantine(one.name)]
    return Contract(len(rules), len(rules) - len(broken), broken, tuple(aside), sum(one.rows for one in aside))


def _champion(store: Reader, catalog: Catalog) -> Champion | None:
    champions = [move for move in list(catalog.aliases.values()) if move.alias == "champion"]
    if not champions:
        return None
    move = max(champions, key=lambda one: one.time)
    made = catalog.models.get(move.digest)
    return Champion(
        endpoint=move.endpoint,
        digest=move.digest,
        family=move.family,
        revision=move.revision,
        reason=move.reason,
        score=_score(store, made, catalog) if made else "",
        more=len(champions) - 1,
    )


def _score(store: Reader, made: Made[ModelVersion], catalog: Catalog) -> str:
    """Return the value of the metric that a model was selected by, as its own run measured it on the test rows."""
    run, metric = store.ledger.run(made.run), made.value.signature.problem.metric
    rows = check_rows(run, catalog) if run else ()
    row = next((row for row in rows if row.measure == metric and row.type == "metric"), None)
    return f"{metric} {row.value:.4f}" if row and row.value is not None else ""


def _next(
    last: RunRow | None,
    gate: Gate | None,
    champion: Champion | None,
    drift: Watched | None,
    missing: tuple[str, ...],
) -> NextStep:
    """Say the one thing to do now: what is broken first, then what is missing, then nothing."""
    if last is None:
        return NextStep("act", "Run it", "Nothing ran in this project yet.", "modelyard run")
    here = f"/runs/{last.id}"
    if last.status == "running":
        return NextStep("calm", "Wait", "A run is under way; this page follows it.", "", here, "Watch the run")
    if last.status in ("interrupted", "cancelled"):
        text = "The last run was cut off. Its finished steps are kept, so the next one goes on from there."
        return NextStep("act", "Run it again", text, "modelyard run", here, "See how far it came")
    if last.status == "skipped":
        text = "The data were stale, so the last run did nothing after its guard."
        return NextStep("act", "Bring newer data", last.reason or text, "modelyard run", here, "See what was stale")
    if last.status == "stopped":
        text = last.reason or "The budget was spent; finished steps are kept."
        return NextStep("alarm", "Raise the budget or wait", text, "", "/cost", "See what was spent")
    if gate and gate.run == last.id and gate.status != "passed":
        text = f"{gate.failing[0]} does not hold, so the champion stays as it is."
        return NextStep("alarm", "Mend the model or the claim", text, "", f"/checks?run={last.id}", "See the checks")
    if last.status == "failed":
        return NextStep("alarm", "Mend the run", last.reason or "A step failed.", "", here, "See the error")
    if missing:
        text = f"The card lacks {', '.join(missing[:3])}; a model without it is not released."
        return NextStep("act", "Fill in the card", text, "", "/cards/latest", "See the card")
    if champion is None:
        return NextStep("act", "Deploy a model", "No model answers yet.", "modelyard run", "/models", "See the models")
    return _watch_next(champion, drift)


def _watch_next(champion: Champion, drift: Watched | None) -> NextStep:
    if drift is None:
        text = "A champion is ready, and no requests were watched yet."
        return NextStep("act", "Serve and watch it", text, "modelyard serve", f"/models/{champion.digest}", "See it")
    failed = [row.feature for row in drift.features if row.status == "failed"]
    failed += [row.name for row in drift.others if row.status == "failed"]
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        text = f"Requests moved from the training data in {', '.join(failed[:3])}{more}; train on newer rows."
        return NextStep("act", "Train again", text, "modelyard run", "/monitoring", "See the drift")
    if not drift.features:
        text = "There are too few requests yet to say whether they look like the training data."
        return NextStep("calm", "Wait for requests", text, "modelyard watch", "/monitoring", "See the last watch")
    return NextStep("calm", "Nothing to do", "The gate holds, and requests look like the training data.")


async def view(request: Request) -> Response:
    """Answer `/`."""
    return await answer(request, load, "overview.html")
