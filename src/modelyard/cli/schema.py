"""`modelyard schema`: print the JSON Schema of the file, for editors."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard.cli.output import data
from modelyard.cli.project import add_json

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of the file, for editors",
        description="Print the JSON Schema (draft 2020-12) of modelyard.yaml. An editor with YAML support completes "
        "fields and shows their texts when the file begins with\n"
        "`# yaml-language-server: $schema=modelyard.schema.json`.",
        epilog="example:\n  modelyard schema > modelyard.schema.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the schema: indented for people, on one line with `--json`."""
    import json

    from modelyard.spec import json_schema

    data(json.dumps(json_schema(), ensure_ascii=False, indent=None if args.json else 2))
    return 0
