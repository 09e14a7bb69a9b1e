"""`modelyard backfill`: run a partitioned step for every partition of a range."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard._kit.text import plural, seconds_text
from modelyard.cli.arguments import whole
from modelyard.cli.output import MARKS, data, json_line, paint, say, table
from modelyard.cli.progress import Progress
from modelyard.cli.project import add_file, add_json, load_spec
from modelyard.cli.stopping import stoppable

if TYPE_CHECKING:
    from modelyard.pipeline.backfill import Backfill, Done
    from modelyard.records import Run

__all__ = ["LOADS", "add", "run"]

LOADS = (
    "modelyard.automation.alerts",
    "modelyard.data.csvlines",
    "modelyard.data.sources",
    "modelyard.logs.ship",
    "modelyard.pipeline.backfill",
    "modelyard.pipeline.compose",
)


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "backfill",
        help="run a partitioned step for every partition of a range",
        description="Run a step that has a `partition` for every partition from one day, month or hour to another, and "
        "the steps behind it that are partitioned alike: side by side, each in a process of its own. Partitions that "
        "are there already are not run again, so a backfill that was killed goes on where it was; one that fails does "
        "not stop the others. Exit code 1: some failed.",
        epilog="example:\n  modelyard backfill clean --from 2026-01-01 --to 2026-01-31 --workers 4",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", metavar="STEP", help="a partitioned step, without its partition")
    parser.add_argument(
        "--from", default="", dest="first", metavar="TIME", help="first day, month or hour (default: the step's start)"
    )
    parser.add_argument(
        "--to", default="", dest="last", metavar="TIME", help="last one, included (default: the newest complete one)"
    )
    parser.add_argument(
        "--workers", type=whole(1), default=0, metavar="N", help="processes at most (default: the cores)"
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the partitions, and say how each ended."""
    from modelyard.automation.alerts import sending
    from modelyard.logs.ship import shipping
    from modelyard.pipeline.backfill import backfill, planned
    from modelyard.pipeline.cost import budget_of
    from modelyard.pipeline.executors import LocalExecutor
    from modelyard.store import open_store

    spec = load_spec(args)
    work = planned(spec, args.step, first=args.first, last=args.last)
    store = open_store(spec.root, file=spec.path.name)
    # Workers end, and the run is recorded as cancelled.
    stoppable()
    executor = LocalExecutor(store, workers=args.workers)
    progress = Progress(len(work.plan.steps), sys.stderr)
    try:
        with sending(spec, store, say), shipping(store, spec.logs, project=spec.project):
            finished, done = backfill(work, store, executor=executor, observe=progress, budget=budget_of(spec, store))
    finally:
        progress.close()
        executor.close()
        store.close()
    if args.json:
        json_line({"run": finished.id, "step": work.step, "along": work.along, "partitions": done})
    else:
        _print(work, finished, done)
    return 1 if any(one.status in ("failed", "waits") for one in done) else 0


def _print(work: Backfill, finished: Run, done: Sequence[Done]) -> None:
    wrong = [one for one in done if one.status in ("failed", "waits")]
    if wrong:
        rows = [
            (
                paint(MARKS["failed" if one.status == "failed" else "skipped"], one.status),
                one.step,
                one.partition,
                one.status,
                one.error.get("message", "what it needs failed"),
            )
            for one in wrong
        ]
        table(("", "step", "partition", "status", "why"), rows)
        data("")
    with_them = f", with {', '.join(work.along)}" if work.along else ""
    counts = {status: sum(one.status == status for one in done) for status in ("ran", "cached", "failed", "waits")}
    words = {"ran": "ran", "cached": "there already", "failed": "failed", "waits": "waiting for those"}
    said = ", ".join(f"{count} {words[status]}" for status, count in counts.items() if count)
    mark = paint(MARKS["failed"], "failed") if wrong else paint(MARKS["passed"], "passed")
    data(f"{mark} {plural(len(work.partitions), 'partition')} of {work.step}{with_them}: {said}")
    data(f"run {finished.id}  {seconds_text(finished.seconds)}")
    if wrong:
        data("run the same again for those that are left, once their cause is mended")
