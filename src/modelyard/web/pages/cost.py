"""Cost: what the runs of a month used and cost, against the budget, and what of it was saved and wasted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modelyard._kit.clock import as_text
from modelyard._kit.errors import UserError
from modelyard._kit.text import seconds_text
from modelyard.pipeline.advice import Advice, advice
from modelyard.pipeline.cost import Costs, RunCost, Waste
from modelyard.records import Prices, Usage
from modelyard.web.answer import answer
from modelyard.web.draw import Column, columns
from modelyard.web.pages.run import plan_of
from modelyard.web.query import Query
from modelyard.web.reader import Reader
from modelyard.web.words import money

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Allowed", "CostPage", "PricedRun", "PricedStep", "allowed", "load", "view"]

_MONTH = re.compile(r"(\d{4})-(\d{2})")
_MONTHS, _RUNS, _DRAWN, _STEPS, _WASTE = 12, 50, 60, 12, 12
# Part of the total below which waste is not worth a line.
_TRIFLE = 0.005
# Runs that advice on resources is taken from.
_ADVISED = 8


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be spent, by the declaration.

    Attributes:
        spent: What the runs of this calendar month (UTC) have cost.
        per_month: What they may cost together; none: no limit.
        per_run: What one of them may cost; none: no limit.
        currency: Of the three.
    """

    spent: float
    per_month: float | None
    per_run: float | None
    currency: str

    @property
    def share(self) -> float:
        """How much of the month's budget is used; 0 without one."""
        return self.spent / self.per_month if self.per_month else 0.0


@dataclass(frozen=True, slots=True)
class PricedRun:
    """One run.

    Attributes:
        id: Its id.
        started: Seconds since 1970 UTC.
        status: How it stands.
        cost: What it cost.
        currency: In what.
        usual: Median cost of the runs before it; none while there are too few.
        unusual: It cost far more than these.
        saved: What cache and guard saved.
        usage: What it used.
    """

    id: str
    started: float
    status: str
    cost: float
    currency: str
    usual: float | None
    unusual: bool
    saved: float
    usage: Usage


@dataclass(frozen=True, slots=True)
class PricedStep:
    """One step over all runs of the month.

    Attributes:
        name: Its name.
        cost: What it cost together.
        share: Part of the cost of all steps; of their CPU time where nothing is priced.
        runs: In how many runs it ran.
        usage: What it used together.
    """

    name: str
    cost: float
    share: float
    runs: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class CostPage:
    """What the runs of a month cost.

    Attributes:
        title: Title of the page.
        month: The month as `YYYY-MM`; `all` for everything.
        months: Months in which there were runs, newest first.
        priced: Whether any of the runs has prices; without, usage is shown alone.
        currency: Of the sums.
        others: Other currencies that runs of the month were priced in; these are in no sum.
        total: What the runs cost together.
        saved: What cache and guard saved.
        usage: What they used together.
        count: How many runs.
        allowed: This month's budget; none where the declaration names no prices, or another month is shown.
        problem: Why the declaration could not be read; empty: it could.
        declared: Whether the declaration names prices now.
        runs: The newest 50 runs.
        unusual: How many of all were unusual.
        steps: The 12 most expensive steps.
        waste: The 12 most expensive things that left nothing, those above half a percent of the total.
        wasted: What all waste cost together.
        advice: Steps that ask too much or too little.
        chart: The newest 60 runs as columns; empty where none used anything that was measured.
    """

    title: str
    month: str
    months: tuple[str, ...]
    priced: bool
    currency: str
    others: tuple[str, ...]
    total: float
    saved: float
    usage: Usage
    count: int
    allowed: Allowed | None
    problem: str
    declared: bool
    runs: tuple[PricedRun, ...]
    unusual: int
    steps: tuple[PricedStep, ...]
    waste: tuple[Waste, ...]
    wasted: float
    advice: tuple[Advice, ...]
    chart: str


def load(store: Reader, query: Query) -> CostPage:
    """Read the costs of the month asked for, or of this one.

    Raises:
        UserError: It is no month.
    """
    now = store.clock()
    this = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
    month = query.text("month") or this
    found = store.costs.of(*_span(month))
    runs = [run for run in found.runs if run.prices != Prices()]
    currency = runs[-1].prices.currency if runs else ""
    summed = [run for run in runs if run.prices.currency == currency]
    declared = store.declared()
    limit = allowed(store) if month == this else None
    chart = _chart(found.runs[-_DRAWN:], currency, limit.per_run if limit else None)
    return CostPage(
        title="Cost",
        month=month,
        months=_months(store, this),
        priced=bool(runs),
        currency=currency,
        others=tuple(sorted({run.prices.currency for run in runs} - {currency})),
        total=sum(run.cost for run in summed),
        saved=sum(run.saved for run in summed),
        usage=sum((run.usage for run in found.runs), Usage()),
        count=len(found.runs),
        allowed=limit,
        problem=declared.problem.message if declared.problem else "",
        declared=declared.spec is not None and _has_prices(store),
        runs=tuple(_run(run) for run in reversed(found.runs[-_RUNS:])),
        unusual=sum(run.unusual for run in found.runs),
        steps=_steps(found, currency),
        waste=tuple(one for one in found.waste if one.cost > _TRIFLE * found.total)[:_WASTE],
        wasted=sum(one.cost for one in found.waste),
        advice=_advice(store),
        chart=chart,
    )


def allowed(store: Reader) -> Allowed | None:
    """Return this month's budget and what is spent of it; none where the declaration names no prices."""
    spec = store.declared().spec
    if spec is None or not _has_prices(store):
        return None
    runs = store.costs.of(*_span(datetime.fromtimestamp(store.clock(), UTC).strftime("%Y-%m"))).runs
    currency = spec.cost.currency
    spent = sum(run.cost for run in runs if run.prices.currency == currency)
    return Allowed(spent, spec.cost.per_month, spec.cost.per_run, currency)


def _has_prices(store: Reader) -> bool:
    spec = store.declared().spec
    return spec is not None and spec.cost.prices != type(spec.cost.prices)()


def _span(month: str) -> tuple[float, float]:
    """Return the first moment of a month and the one after its last, UTC."""
    if month == "all":
        return 0.0, float("inf")
    match = _MONTH.fullmatch(month)
    if match is None or not 1 <= int(match[2]) <= 12 or not 1970 <= int(match[1]) <= 9000:
        raise UserError("page-query", f"`{month}` is no month", hint="for example `2026-11`, or `all`")
    year, at = int(match[1]), int(match[2])
    begin = datetime(year, at, 1, tzinfo=UTC)
    return begin.timestamp(), datetime(year + at // 12, at % 12 + 1, 1, tzinfo=UTC).timestamp()


def _months(store: Reader, this: str) -> tuple[str, ...]:
    times = [tally.began for tally in list(store.catalog().tallies.values()) if tally.began]
    found = {datetime.fromtimestamp(at, UTC).strftime("%Y-%m") for at in times}
    return tuple(sorted(found | {this}, reverse=True)[:_MONTHS])


def _run(run: RunCost) -> PricedRun:
    return PricedRun(
        id=run.run,
        started=run.started,
        status=run.status,
        cost=run.cost,
        currency=run.prices.currency if run.prices != Prices() else "",
        usual=run.usual,
        unusual=run.unusual,
        saved=run.saved,
        usage=run.usage,
    )


def _steps(found: Costs, currency: str) -> tuple[PricedStep, ...]:
    sums: dict[str, tuple[float, int, Usage]] = {}
    for run in found.runs:
        for step in run.steps.values():
            cost, count, usage = sums.get(step.name, (0.0, 0, Usage()))
            mine = run.prices.of(step.usage) if run.prices.currency == currency else 0.0
            sums[step.name] = cost + mine, count + (step.usage != Usage()), usage + step.usage
    whole = sum(cost for cost, _, _ in sums.values())
    cpu = sum(usage.cpu_seconds for _, _, usage in sums.values())
    rows = [
        PricedStep(name, cost, cost / whole if whole else usage.cpu_seconds / cpu if cpu else 0.0, count, usage)
        for name, (cost, count, usage) in sums.items()
        if count
    ]
    return tuple(sorted(rows, key=lambda row: (-row.cost, -row.usage.cpu_seconds))[:_STEPS])


def _advice(store: Reader) -> tuple[Advice, ...]:
    listed = store.ledger.runs(limit=_ADVISED)
    plan = next((plan for run in listed if (plan := plan_of(store, run))), None)
    if plan is None:
        return ()
    whole = [run for one in listed if (run := store.ledger.run(one.id))]
    return tuple(advice(plan, whole, lambda run: plan_of(store, run)))


def _chart(runs: list[RunCost], currency: str, limit: float | None) -> str:
    if not any(run.usage.cpu_seconds or run.cost for run in runs):
        return ""
    found = []
    for run in runs:
        cost, cpu = run.cost, run.usage.cpu_seconds
        said = f"{money(cost)} {currency}" if currency else f"{seconds_text(cpu)} of CPU"
        usual = f", usually {money(run.usual)}" if run.unusual else ""
        label = f"{run.run}, {as_text(run.started)}: {said}{usual}"
        found.append(Column(cost if currency else cpu, label, f"/runs/{run.run}", run.unusual, run.usual))
    title = "Cost of each run" if currency else "CPU time of each run"
    days = as_text(runs[0].started)[:10], as_text(runs[-1].started)[:10]
    bound = limit if currency else None
    return str(columns(found, title=title, unit=currency or "seconds", limit=bound, ends=days))


async def view(request: Request) -> Response:
    """Answer `/cost`."""
    return await answer(request, load, "cost.html")
