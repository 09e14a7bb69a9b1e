"""`modelyard promote`: point an alias at a model."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard.cli.output import data, json_line
from modelyard.cli.project import add_file, add_json, endpoint_in, open_existing

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "promote",
        help="point an alias at a model",
        description="Point the champion (or the challenger) at a model that has a card: one that passed every blocking "
        "check of its run. Its bundle's signature and bytes are checked first. A server that runs takes the "
        "champion over within a second.",
        epilog="example:\n  modelyard promote 3fa9c1d2b4e5\n  modelyard promote challenger",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="first digits of its digest, or `challenger`")
    parser.add_argument(
        "--endpoint", default="", metavar="NAME", help="default: the endpoint that the model was made for"
    )
    parser.add_argument("--alias", default="champion", choices=["champion", "challenger"], help="default: champion")
    parser.add_argument("--reason", default="", help="why, for the record")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Move the alias."""
    from modelyard.deploy.aliases import find_model, move, pointed
    from modelyard.records import plain

    actor = user()
    with open_existing(args, model=True) as store:
        if args.model == "challenger":
            endpoint = endpoint_in(args, store)
            model = pointed(store, endpoint, "challenger").model
        else:
            model = find_model(store, args.model)
            endpoint = args.endpoint or model.name
            # A model is named after the endpoint it was made for; any other has to be there already.
            known = {model.name, *(d.endpoint for d in store.ledger.aliases())}
            if endpoint not in known:
                raise NotFound.of("endpoint", endpoint, known)
        before = store.ledger.alias(endpoint, args.alias)
        now = move(store, endpoint, args.alias, model, reason=args.reason or f"promoted by {actor}", actor=actor)
    if args.json:
        json_line(plain(now))
    elif before is not None and now.revision == before.revision:
        data(f"{now.endpoint}/{now.alias} is {short(now.model.digest)} already")
    else:
        data(f"{now.endpoint}/{now.alias} -> {now.model.family} {short(now.model.digest)} ({now.reason})")
    return 0
