"""`modelyard plan`: say what a run would do, and why."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.text import seconds_text
from modelyard.cli.output import MARKS, data, json_line, paint, table
from modelyard.cli.project import add_file, add_json, load_spec

if TYPE_CHECKING:
    from modelyard.spec import Spec
    from modelyard.store import Store

__all__ = ["LOADS", "add", "run"]

LOADS = ("modelyard.data.steps", "modelyard.pipeline.compose")


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "plan",
        help="say what a run would do, and why",
        description="Print the steps in order, whether each would run, and why. Nothing is written.",
        epilog="example:\n  modelyard plan --json | jq '.[] | select(.verdict == \"run\")'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan."""
    from modelyard.pipeline import preview
    from modelyard.pipeline.compose import compose
    from modelyard.store import LocalStore, open_store, store_exists

    spec = load_spec(args)
    plan = compose(spec)
    store: Store
    with ExitStack() as stack:
        if not store_exists(spec.root, file=spec.path.name):
            # Nothing ran here yet, and a plan makes nothing: it is read from an empty store that is thrown away.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-plan-")))
            store = stack.enter_context(LocalStore(spec.root, folder=folder / "store"))
        else:
            store = stack.enter_context(open_store(spec.root, file=spec.path.name))
        foreseen = preview(plan, store)
        due = _due(spec, store)
    if args.json:
        json_line(foreseen)
        return 0
    rows = [
        (
            MARKS[f.verdict],
            f.step,
            {"run": "will run", "cached": "cached", "depends": "may run"}[f.verdict],
            seconds_text(f.seconds) if f.seconds else "",
            f.why,
        )
        for f in foreseen
    ]
    table(("", "step", "verdict", "last took", "why"), rows, right=(3,))
    will = sum(f.verdict == "run" for f in foreseen)
    may = sum(f.verdict == "depends" for f in foreseen)
    cached = len(foreseen) - will - may
    data(paint(f"\n{len(foreseen)} steps: {will} will run, {may} may run, {cached} cached", "bold"))
    for name, text in due:
        data(f"next: {text}" if len(due) == 1 else f"next {name}: {text}")
    return 0


def _due(spec: Spec, store: Store) -> list[tuple[str, str]]:
    """Return when each schedule is due next."""
    if not spec.schedule:
        return []
    from modelyard.automation.schedule import next_texts

    return next_texts(spec, store)
