"""`modelyard rollback`: point the champion back at the model before it."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard.cli.output import data, json_line
from modelyard.cli.project import add_file, add_json, endpoint_in, open_existing

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "rollback",
        help="point the champion back at the model before it",
        description="Point the champion back at the model it pointed at before, or at another one that it pointed at "
        "once. Nothing is deleted: rolling back again returns to where you were. A run with nothing changed leaves it. "
        "What was in a stage before needs no approval to come back; other stages stay as they are.",
        epilog="example:\n  modelyard rollback\n  modelyard rollback --to 3fa9c1d2b4e5 --reason 'errors since noon'\n"
        "  modelyard rollback prod\n"
        "  modelyard rollback --alias challenger",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "endpoint",
        nargs="?",
        default="",
        metavar="ENDPOINT",
        help="which, where there are several; or the name of a stage",
    )
    parser.add_argument("--to", default="", metavar="MODEL", help="first digits of an earlier champion's digest")
    parser.add_argument(
        "--alias",
        default="champion",
        choices=["champion", "challenger"],
        help="challenger: end its trial instead, the champion stays (default: champion)",
    )
    parser.add_argument("--reason", default="", help="why, for the record")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Move the champion back, or take the challenger out of its trial."""
    from modelyard.deploy.aliases import pointed, rollback, withdraw
    from modelyard.records import plain

    with open_existing(args, model=True) as store:
        endpoint = endpoint_in(args, store, back=True)
        before = pointed(store, endpoint, args.alias)
        if args.alias == "challenger":
            now = withdraw(store, endpoint, actor=user(), reason=args.reason)
        else:
            now = rollback(store, endpoint, actor=user(), to=args.to, reason=args.reason)
    if args.json:
        json_line(plain(now))
    elif now.revision == before.revision:
        data(f"{now.endpoint}/{now.alias} is {short(now.model.digest)} already")
    else:
        data(
            f"{now.endpoint}/{now.alias} -> {now.model.family} {short(now.model.digest)} ({now.reason}); "
            f"it was {short(before.model.digest)}"
        )
    return 0
