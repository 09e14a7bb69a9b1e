"""`modelyard run`: run the file, with progress on a terminal, plain lines elsewhere, or JSON events."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from modelyard.cli.arguments import whole
from modelyard.cli.output import data, json_line, say
from modelyard.cli.progress import Progress
from modelyard.cli.project import add_file, declare_stages, load_spec, say_missing
from modelyard.cli.repeat import add_every, repeated
from modelyard.cli.stopping import stoppable

__all__ = ["LOADS", "add", "run"]

LOADS = (
    "modelyard.automation.alerts",
    "modelyard.cards.build",
    "modelyard.cli.report",
    "modelyard.data.csvlines",
    "modelyard.data.sources",
    "modelyard.pipeline.compose",
    "modelyard.pipeline.project",
    "modelyard.pipeline.publish",
)


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "run",
        help="run the file: data to a served model, skipping what did not change",
        description="Run every step whose code, parameters, inputs or environment changed; the others are taken "
        "from the ledger. A run that was killed goes on from its finished steps.",
        epilog="example:\n  modelyard run\n  modelyard run --json | jq 'select(.kind == \"step.finished\") | .step'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print each event as one line of JSON on stdout")
    parser.add_argument(
        "--workers", type=whole(1), default=0, metavar="N", help="processes at most (default: the cores)"
    )
    add_every(parser)
    add_file(parser)


def run(args: argparse.Namespace) -> int:
    """Run the plan of the file, once or again and again."""
    return repeated(args, lambda: _once(args))


def _once(args: argparse.Namespace) -> int:
    from modelyard._kit.errors import ModelyardError
    from modelyard.automation.alerts import sending
    from modelyard.cli.report import report, report_alias
    from modelyard.pipeline.compose import compose
    from modelyard.pipeline.executors import LocalExecutor
    from modelyard.pipeline.project import run_project
    from modelyard.pipeline.publish import card_files
    from modelyard.store import open_store

    spec = load_spec(args)
    steps = len(compose(spec).steps)
    store = open_store(spec.root, file=spec.path.name)
    say_missing(spec)
    if spec.stages:
        declare_stages(spec, store)
    if not args.every:
        # Workers end, and the run is recorded as cancelled.
        stoppable()
    executor = LocalExecutor(store, workers=args.workers)
    if args.json:
        try:
            with sending(spec, store, say):
                run_project(spec, store, executor=executor, observe=json_line)
        finally:
            executor.close()
        return 0
    progress = Progress(steps, sys.stderr)
    try:
        with sending(spec, store, say):
            finished = run_project(spec, store, executor=executor, observe=progress)
    except ModelyardError:
        # What was found out before it stopped is worth as much as why it stopped; of one that never began there is
        # nothing, and an empty id would be taken for the newest run.
        progress.close()
        if progress.run_id and (latest := store.ledger.run(progress.run_id)):
            report(latest)
            if spec.model is not None:
                say("the champion did not move")
        raise
    finally:
        progress.close()
        executor.close()
    report(finished)
    report_alias(finished, store)
    for file in card_files(finished, store):
        if file.suffix == ".html":
            data(f"card   {file}")
    data(f"result {finished.result[:12]}  run {finished.id}")
    return 0
