"""`modelyard lint`: hold the file against good practice, with a score and the fix for each rule."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard.cli.arguments import whole
from modelyard.cli.output import MARKS, data, json_line, paint
from modelyard.cli.project import add_file, add_json, load_spec

__all__ = ["LOADS", "add", "run"]

LOADS = ("modelyard.spec.practice",)


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "lint",
        help="hold the file against good practice: a score, and the fix for each rule",
        description="Say what a declaration that runs alone at night should say as well: retries, freshness, alerts, "
        "an owner, a card, limits, no secret. A file that breaks a rule still runs; with --at-least the exit code is "
        "1 below that score.",
        epilog="example:\n  modelyard lint --at-least 80\n"
        "  modelyard lint --json | jq '.rules[] | select(.kept | not)'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--at-least", type=whole(0, 100), default=0, metavar="N", help="lowest score that passes, 0 to 100"
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print each rule and what to write."""
    from modelyard.spec.practice import practice

    found = practice(load_spec(args, files=False))
    passed = found.score >= args.at_least
    if args.json:
        json_line({"score": found.score, "passed": passed, "rules": found.rules})
        return 0 if passed else 1
    for held in found.rules:
        status = "passed" if held.kept else "failed"
        data(f"{paint(MARKS[status], status)} {held.rule:<24} {paint(held.why, 'dim')}")
        for where, what, fix in zip(held.where, held.lacks, held.fixes, strict=True):
            data(f"    {where}: {what}")
            data(f"      write: {fix}")
    data("")
    data(f"score {found.score} of 100" + ("" if passed else f"; at least {args.at_least} is asked for"))
    return 0 if passed else 1
