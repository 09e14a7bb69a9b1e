"""`modelyard runs`: list the runs."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard.cli.arguments import whole
from modelyard.cli.output import json_line, say
from modelyard.cli.project import add_file, add_json, open_existing
from modelyard.cli.report import print_runs

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "runs",
        help="list the runs",
        description="List the runs, newest first.",
        epilog="example:\n  modelyard runs --limit 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--limit", type=whole(1), default=20, help="how many at most (default: 20)")
    parser.add_argument("--before", default="", metavar="RUN", help="only runs before this one, for paging")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the runs."""
    from modelyard.store.local import settle

    store = open_existing(args)
    runs = [settle(r, store) for r in store.ledger.runs(before=args.before, limit=args.limit)]
    if args.json:
        json_line(runs)
        return 0
    if not runs:
        say("no run yet; `modelyard run` makes the first")
        return 0
    print_runs(runs)
    return 0
