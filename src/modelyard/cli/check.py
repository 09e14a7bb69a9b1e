"""`modelyard check`: check the file without running anything."""

from __future__ import annotations

import argparse
from typing import Any

from modelyard._kit.text import plural
from modelyard.cli.output import data, json_line
from modelyard.cli.project import add_file, add_json, load_spec, say_missing

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "check",
        help="check the file without running anything",
        description="Read the declaration and say everything that is wrong with it, with lines: unknown fields, wrong "
        "types, missing files, contradictions. Nothing is written.",
        epilog="example:\n  modelyard check --json | jq '.problems[] | .where + \" \" + .message'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check the file; everything that is wrong is raised, or printed with `--json`."""
    from modelyard._kit.errors import UserError
    from modelyard.pipeline.compose import compose

    try:
        spec = load_spec(args)
        compose(spec)
    except UserError as error:
        if not args.json:
            raise
        problems = [{"code": p.code, "where": p.where, "message": p.message, "hint": p.hint} for p in error.problems]
        json_line({"ok": False, "file": args.file, "problems": problems})
        return error.exit_code
    counts = {"tables": len(spec.data)}
    if spec.model is not None:
        counts |= {"candidates": len(spec.model.families), "checks": len(spec.checks)}
    if spec.steps:
        counts["steps"] = len(spec.steps)
    if args.json:
        json_line(
            {"ok": True, "file": args.file, "project": spec.project, **counts, "digest": spec.digest, "problems": []}
        )
    else:
        said = ", ".join(plural(count, noun[:-1]) for noun, count in counts.items() if count or spec.model)
        data(f"{args.file}: ok: {said}")
        say_missing(spec)
    return 0
