"""`modelyard revive`: switch an endpoint on again."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard._kit.actor import user
from modelyard.cli.output import data, json_line
from modelyard.cli.project import add_file, add_json, endpoint_in, open_existing

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "revive",
        help="switch an endpoint on again that was killed",
        description="Switch an endpoint on again that `modelyard kill` has switched off; its servers answer within a "
        "second.",
        epilog="example:\n  modelyard revive income --reason 'the old model is back'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="which, or the name of a stage")
    parser.add_argument("--reason", default="", help="why, for the record")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Switch it on."""
    from modelyard.deploy.switch import revive

    with open_existing(args, model=True) as store:
        endpoint = endpoint_in(args, store)
        was = revive(store, endpoint, reason=args.reason, actor=user())
    if args.json:
        json_line({"endpoint": endpoint, "killed": False, "was": was})
    else:
        data(f"{endpoint} {'is switched on again' if was else 'was not switched off'}")
    return 0
