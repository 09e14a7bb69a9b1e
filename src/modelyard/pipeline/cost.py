"""What runs cost: usage from the events, times the prices that each run was started with."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard.records import Budget, Event, EventKind, Prices, Usage
from modelyard.store import Store

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["Costs", "RunCost", "StepCost", "Waste", "budget_of", "costs", "model_cost", "month_of", "prices_of"]

_KINDS: tuple[EventKind, ...] = (
    "run.started",
    "run.finished",
    "step.finished",
    "step.cached",
    "step.retried",
    "step.failed",
    "step.skipped",
)
# Runs before one that say what is usual, and how many of them are the least that can.
_USUAL, _FEWEST = 20, 5
# A run is unusual above the median of those before it by so many times their spread, and by half of it at least.
_SPREADS, _LEAST = 5.0, 0.5
# A median absolute deviation times this estimates the standard deviation of normal numbers (Hampel 1974).
_MAD = 1.4826


class StepCost(msgspec.Struct, kw_only=True):
    """What one step of a run cost.

    Attributes:
        name: Name of the step.
        usage: What all its attempts used.
        failed: The part of it that went into attempts that failed.
        remade: Used to make again exactly what a run before had made already.
        asked_cpu_seconds: Cores asked for times the seconds they were held.
        saved: What a run out of the cache, or a skipped one, did not use: as much as the step used when it last ran.
    """

    name: str
    usage: Usage = Usage()
    failed: Usage = Usage()
    remade: Usage = Usage()
    asked_cpu_seconds: float = 0.0
    saved: Usage = Usage()


class RunCost(msgspec.Struct, kw_only=True):
    """What one run cost.

    Attributes:
        run: Its id.
        started: Seconds since 1970 UTC.
        status: How it stands, `running` while it runs.
        prices: Those that it was started with.
        steps: Name -> cost of the step.
        usual: Median cost of the runs before it; none while there are too few.
        unusual: It cost far more than the runs before it.
    """

    run: str
    started: float
    status: str = "running"
    prices: Prices = Prices()
    steps: dict[str, StepCost] = {}
    usual: float | None = None
    unusual: bool = False

    @property
    def usage(self) -> Usage:
        """What all steps used together."""
        return sum((step.usage for step in self.steps.values()), Usage())

    @property
    def cost(self) -> float:
        """What that costs, in `prices.currency`."""
        return self.prices.of(self.usage)

    @property
    def saved(self) -> float:
        """What the cache and the guard saved, in the same."""
        return self.prices.of(sum((step.saved for step in self.steps.values()), Usage()))


class Waste(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was paid for and left nothing.

    Attributes:
        kind: `failed` (attempts that failed), `idle` (cores that were asked for and not used) or `remade` (steps that
            made what was there already).
        step: Name of the step.
        cost: What it cost, in the currency of the prices.
        runs: In how many runs.
        advice: What to do about it.
    """

    kind: str
    step: str
    cost: float
    runs: int
    advice: str


class Costs(msgspec.Struct, kw_only=True):
    """The runs of a span of time, the oldest first, and what stands out among them."""

    runs: list[RunCost] = []
    waste: list[Waste] = []

    @property
    def total(self) -> float:
        """What all of them cost together."""
        return sum(run.cost for run in self.runs)

    def by_step(self) -> dict[str, tuple[float, int]]:
        """Return step -> what it cost over all runs and how many runs it ran in, the most expensive first."""
        found: dict[str, tuple[float, int]] = {}
        for run in self.runs:
            for step in run.steps.values():
                cost, count = found.get(step.name, (0.0, 0))
                found[step.name] = cost + run.prices.of(step.usage), count + (step.usage != Usage())
        return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def prices_of(spec: Spec) -> Prices:
    """Return the prices of a declaration."""
    return Prices(currency=spec.cost.currency, **msgspec.to_builtins(spec.cost.prices))


def budget_of(spec: Spec, store: Store, *, clock: Clock = system_clock) -> Budget | None:
    """Return the budget of a run that begins now; none where the declaration has no `cost`."""
    if spec.cost == type(spec.cost)():
        return None
    spent = costs(store, since=month_of(clock())).total if spec.cost.per_month is not None else 0.0
    return Budget(prices=prices_of(spec), per_run=spec.cost.per_run, per_month=spec.cost.per_month, month_spent=spent)


def month_of(now: float) -> float:
    """Return the beginning of the calendar month (UTC) of a time, both in seconds since 1970 UTC."""
    return datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def costs(store: Store, *, since: float = 0.0, until: float = float("inf")) -> Costs:
    """Return what the runs that began in a span of time cost, and what of it was wasted.

    Args:
        store: Whose ledger is read.
        since: First moment, seconds since 1970 UTC.
        until: The moment after the last one.
    """
    runs = _fold(store.ledger.events(kinds=_KINDS, after=_begin(store, since)), store)
    _mark_unusual(runs)
    asked = [run for run in runs if since <= run.started < until]
    return Costs(runs=asked, waste=_waste(asked))


def _begin(store: Store, since: float) -> int:
    """Return the sequence number before the runs that count: those of the span, and those that say what is usual."""
    starts = list(store.ledger.events(kinds=("run.started",))) if since else []
    first = next((at for at, event in enumerate(starts) if event.time >= since), len(starts))
    return starts[max(0, first - _USUAL)].seq - 1 if starts else 0


def model_cost(run: str, store: Store) -> Usage:
    """Return what it took to make a run's model: its own steps, and those it found in the cache as they once ran."""
    total = Usage()
    found = store.ledger.run(run)
    for step in found.steps if found else ():
        made = store.ledger.output(step.key) if step.status == "cached" else None
        total += made.usage if made else step.used
    return total


def _fold(events: Iterable[Event], store: Store) -> list[RunCost]:
    runs: dict[str, RunCost] = {}
    made: dict[str, dict[str, str]] = {}
    for event in events:
        body = event.payload
        if event.kind == "run.started":
            prices = msgspec.convert(body.get("prices", {}), Prices)
            runs[event.run] = RunCost(run=event.run, started=event.time, prices=prices)
            continue
        run = runs.get(event.run)
        if run is None:
            continue
        if event.kind == "run.finished":
            run.status = body["status"]
            for name, used in body.get("cut", {}).items():
                cut = run.steps.setdefault(name, StepCost(name=name))
                cut.usage += (lost := msgspec.convert(used, Usage))
                cut.failed += lost
            continue
        step = run.steps.setdefault(event.step, StepCost(name=event.step))
        usage = msgspec.convert(body.get("usage", {}), Usage)
        step.usage += usage
        match event.kind:
            case "step.retried" | "step.failed":
                step.failed += usage
            case "step.cached":
                once = store.ledger.output(body["key"])
                step.saved += once.usage if once else Usage()
            case "step.skipped":
                step.saved += msgspec.convert(body.get("saved") or {}, Usage)
            case "step.finished":
                contents = {name: _content(value) for name, value in body["outputs"].items()}
                if contents and made.get(event.step) == contents and all(contents.values()):
                    step.remade += usage
                made[event.step] = contents
                step.asked_cpu_seconds += body.get("asked_cpus", 0.0) * body.get("seconds", 0.0)
    return list(runs.values())


def _content(value: Any) -> str:
    """Return the digest of a table or a model; other values cost nothing to speak of."""
    known = isinstance(value, dict) and value.get("kind") in ("table", "model")
    return str(value["digest"]) if known else ""


def _mark_unusual(runs: list[RunCost]) -> None:
    """Compare each run with those before it, by the median and its spread: one odd run does not move them."""
    priced = [run for run in runs if run.cost > 0]
    for at, run in enumerate(priced):
        before = [other.cost for other in priced[max(0, at - _USUAL) : at]]
        if len(before) < _FEWEST:
            continue
        run.usual = statistics.median(before)
        spread = _MAD * statistics.median(abs(cost - run.usual) for cost in before)
        run.unusual = run.cost - run.usual > max(_SPREADS * spread, _LEAST * run.usual)


def _waste(runs: list[RunCost]) -> list[Waste]:
    advice = {
        "failed": "see why with `modelyard show`, and let what cannot pass fail at once",
        "idle": "ask for fewer cores",
        "remade": "what it depends on changes without changing what it makes: narrow its inputs or parameters",
    }
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for run in runs:
        for step in run.steps.values():
            idle = Usage(cpu_seconds=max(0.0, step.asked_cpu_seconds - step.usage.cpu_seconds))
            for kind, usage in (("failed", step.failed), ("idle", idle), ("remade", step.remade)):
                if cost := run.prices.of(usage):
                    before, count = sums.get((kind, step.name), (0.0, 0))
                    sums[kind, step.name] = before + cost, count + 1
    found = [
        Waste(kind=kind, step=step, cost=cost, runs=count, advice=advice[kind])
        for (kind, step), (cost, count) in sums.items()
    ]
    return sorted(found, key=lambda waste: -waste.cost)
