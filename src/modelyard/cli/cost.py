"""`modelyard cost`: what runs and steps cost, what was saved, and what was wasted."""

from __future__ import annotations

import argparse
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import as_text
from modelyard._kit.errors import NotFound, UserError
from modelyard._kit.text import number, seconds_text
from modelyard.cli.output import MARKS, data, json_line, paint, say, table
from modelyard.cli.project import add_file, add_json, load_spec, open_existing

if TYPE_CHECKING:
    from modelyard.pipeline.cost import Costs, RunCost
    from modelyard.records import Plan, Prices, Run, Usage
    from modelyard.store import Store

__all__ = ["add", "run"]

# Newest runs that advice is taken from.
_RUNS = 20
_MONTH = re.compile(r"(\d{4})-(\d{2})")


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "cost",
        help="what runs and steps cost, and what was wasted",
        description="Price what runs used of the machine, by the kernel's own accounting and the prices under `cost:` "
        "that each run was started with. Without prices, what was used is shown.",
        epilog="example:\n  modelyard cost\n  modelyard cost --month 2026-11 --json\n  modelyard cost RUN\n"
        "  modelyard cost --advice",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="?", default="", metavar="RUN", help="one run, step by step")
    parser.add_argument("--month", default="", metavar="YYYY-MM", help="a calendar month, UTC (default: this one)")
    parser.add_argument("--advice", action="store_true", help="what steps asked of the machine, and had better ask")
    parser.add_argument("--all", action="store_true", help="everything since the first run")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was asked for."""
    from modelyard.pipeline.cost import costs

    store = open_existing(args)
    if args.advice:
        return _advice(args, store)
    if args.run:
        return _one(args, costs(store), store)
    since, until = (0.0, float("inf")) if args.all else _span(args.month)
    found = costs(store, since=since, until=until)
    if args.json:
        total = {"total": found.total, "saved": sum(r.saved for r in found.runs)}
        json_line(
            {
                **total,
                "runs": [_plain(r) for r in found.runs],
                "steps": {name: {"cost": cost, "runs": runs} for name, (cost, runs) in found.by_step().items()},
                "waste": found.waste,
            }
        )
        return 0
    if not found.runs:
        say("no run in this time; `--all` looks at all of them")
        return 0
    _months(found)
    return 0


def _advice(args: argparse.Namespace, store: Store) -> int:
    """Print which steps ask too much or too little of the machine."""
    from modelyard.pipeline.compose import compose
    from modelyard.pipeline.machine import advice
    from modelyard.pipeline.recompute import plan_of

    def followed(run: Run) -> Plan | None:
        with suppress(NotFound):
            return plan_of(run, store)
        return None

    plan = compose(load_spec(args, files=False))
    whole = (store.ledger.run(one.id) for one in store.ledger.runs(limit=_RUNS))
    found = advice(plan, [one for one in whole if one is not None], followed)
    if args.json:
        json_line(found)
        return 0
    for one in found:
        data(f"{one.step}: {one.text}")
    if not found:
        say("every step asks for about what it uses, or has not run long enough to tell")
    return 0


def _one(args: argparse.Namespace, found: Costs, store: Store) -> int:
    from modelyard.pipeline.cost import model_cost

    one = next((r for r in found.runs if r.run == args.run), None)
    if one is None:
        raise NotFound.of("run", args.run, [r.run for r in found.runs])
    making = model_cost(one.run, store)
    if args.json:
        json_line({**_plain(one), "steps": list(one.steps.values()), "making": one.prices.of(making)})
        return 0
    steps = sorted(one.steps.values(), key=lambda s: -s.usage.cpu_seconds)
    table(
        ("step", "cost", "CPU", "memory", "GPU", "read", "written"),
        [(s.name, _money(one.prices, s.usage), *_used(s.usage)) for s in steps],
        right=(1, 2, 3, 4, 5, 6),
    )
    data("")
    data(f"together {_money(one.prices, one.usage)}, {seconds_text(one.usage.cpu_seconds)} of CPU")
    data(f"made from nothing it would have been {_money(one.prices, making)}")
    return 0


def _months(found: Costs) -> None:
    table(
        ("", "run", "started", "cost", "saved", "CPU", ""),
        [
            (
                paint(MARKS.get(r.status, "?"), r.status),
                r.run,
                as_text(r.started),
                _money(r.prices, r.usage),
                _amount(r.prices, r.saved),
                seconds_text(r.usage.cpu_seconds),
                paint(f"usually {number(r.usual)}", "yellow") if r.unusual else "",
            )
            for r in found.runs
        ],
        right=(3, 4, 5),
    )
    prices = found.runs[-1].prices
    if prices == type(prices)(currency=prices.currency):
        say("no prices are declared; say what the machine costs: cost: {prices: {cpu_hour: 0.04}}")
        return
    data("")
    data(f"together {_amount(prices, found.total)}; saved {_amount(prices, sum(r.saved for r in found.runs))}")
    if priced := [(name, cost, runs) for name, (cost, runs) in found.by_step().items() if cost][:5]:
        data("")
        rows = [(name, _amount(prices, cost), str(runs)) for name, cost, runs in priced]
        table(("most expensive step", "cost", "runs"), rows, right=(1, 2))
    if found.waste:
        data("")
        table(
            ("waste", "step", "cost", "runs", "advice"),
            [(w.kind, w.step, _amount(prices, w.cost), str(w.runs), w.advice) for w in found.waste[:5]],
            right=(2, 3),
        )


def _span(month: str) -> tuple[float, float]:
    from modelyard.pipeline.cost import month_of

    if not month:
        return month_of(time.time()), float("inf")
    match = _MONTH.fullmatch(month)
    if match is None or not 1 <= int(match[2]) <= 12 or int(match[1]) < 1970:
        raise UserError("cli-value", f"--month is `{month}`", hint="for example `2026-11`")
    year, number_ = int(match[1]), int(match[2])
    first = datetime(year, number_, 1, tzinfo=UTC)
    after = datetime(year + number_ // 12, number_ % 12 + 1, 1, tzinfo=UTC)
    return first.timestamp(), after.timestamp()


def _money(prices: Prices, usage: Usage) -> str:
    return _amount(prices, prices.of(usage))


def _amount(prices: Prices, amount: float) -> str:
    return f"{number(amount)} {prices.currency}"


def _used(usage: Usage) -> tuple[str, ...]:
    return (
        seconds_text(usage.cpu_seconds),
        _bytes(usage.peak_bytes),
        seconds_text(usage.gpu_seconds) if usage.gpu_seconds else "",
        _bytes(usage.read_bytes),
        _bytes(usage.written_bytes),
    )


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B" if count else ""


def _plain(one: RunCost) -> dict[str, Any]:
    return {
        "run": one.run,
        "started": one.started,
        "status": one.status,
        "cost": one.cost,
        "currency": one.prices.currency,
        "saved": one.saved,
        "usual": one.usual,
        "unusual": one.unusual,
        "usage": one.usage,
    }
