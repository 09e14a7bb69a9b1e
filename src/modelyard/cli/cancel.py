"""`modelyard cancel`: end the run that is under way."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard._kit.actor import user
from modelyard.cli.output import json_line, say
from modelyard.cli.project import add_file, add_json, open_existing

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "cancel",
        help="end the run that is under way",
        description="End the run that is under way, whether `modelyard up`, another terminal or another machine runs "
        "it, and wait until it has ended. It is recorded as cancelled; its finished steps are kept, and its fire does "
        "not come back. The daemon goes on with the next one.",
        epilog="example:\n  modelyard cancel\n  modelyard cancel run-1m7yrxynn5p1hk",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="?", default="", metavar="RUN", help="which run; left out, the one under way")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Cancel, and say how the run ended."""
    from modelyard.pipeline.cancel import cancel

    with open_existing(args) as store:
        ended = cancel(store, actor=user(), run=args.run)
    if args.json:
        json_line(ended)
    else:
        say(f"{ended.id} ended: {ended.status}{f' ({ended.reason})' if ended.reason else ''}")
    # A run that came to its end by itself was not cancelled.
    return 0 if ended.status in ("cancelled", "interrupted") else 1
