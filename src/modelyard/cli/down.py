"""`modelyard down`: stop the daemon of this project on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from modelyard.cli.output import json_line, say
from modelyard.cli.project import add_file, add_json

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "down",
        help="stop what `modelyard up` runs",
        description="Stop the daemon of this project on this machine, and wait until it has ended. The run under way "
        "may end, as long as `--grace` of `modelyard up` says; one that takes longer is cut off, and goes on from its "
        "finished steps at the next `modelyard up`. What waits, waits.",
        epilog="example:\n  modelyard down\n  modelyard down --now",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--now", action="store_true", help="do not wait for the run under way: cut it off at once")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Stop it."""
    from modelyard.automation.stop import stop

    root = Path(args.file).resolve().parent
    pid = stop(root, now=args.now)
    if args.json:
        json_line({"stopped": pid is not None, "pid": pid})
    else:
        say("no daemon of this project runs on this machine" if pid is None else f"stopped process {pid}")
    return 0
