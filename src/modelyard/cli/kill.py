"""`modelyard kill`: switch an endpoint off at once."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard._kit.actor import user
from modelyard.cli.output import data, json_line
from modelyard.cli.project import add_file, add_json, open_existing

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "kill",
        help="switch an endpoint off at once",
        description="Switch an endpoint off: within a second each of its servers answers 503 to whoever asks the model "
        "and says that it is not ready. The ledger keeps who did it and why; callers are not told why. A server that "
        "is started meanwhile is off too. `modelyard revive` switches it on again.",
        epilog="example:\n  modelyard kill income --reason 'harmful answers since noon'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="which")
    parser.add_argument("--reason", required=True, help="why, for the record")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Switch it off."""
    from modelyard.deploy.aliases import endpoint_of
    from modelyard.deploy.switch import kill

    with open_existing(args, model=True) as store:
        endpoint = endpoint_of(store, args.endpoint)
        was = kill(store, endpoint, reason=args.reason, actor=user())
    if args.json:
        json_line({"endpoint": endpoint, "killed": True, "was": was})
    elif was is not None:
        data(f"{endpoint} is off already {was}")
    else:
        data(f"{endpoint} is switched off; `modelyard revive {endpoint}` switches it on again")
    return 0
