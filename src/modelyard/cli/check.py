"""`modelyard check`: check the file without running anything."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from modelyard._kit.text import plural
from modelyard.cli.output import data, json_line, plain_problems, say_problem
from modelyard.cli.project import add_file, add_json, load_spec, say_missing

if TYPE_CHECKING:
    from modelyard._kit.errors import Problem
    from modelyard.spec import Spec

__all__ = ["LOADS", "add", "run"]

LOADS = (
    "modelyard.cards.build",
    "modelyard.data.csvlines",
    "modelyard.data.sources",
    "modelyard.pipeline.compose",
    "modelyard.spec.held",
)


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "check",
        help="check the file without running anything",
        description="Read the declaration and say everything that is wrong with it, with lines: unknown fields, wrong "
        "types, missing files, contradictions. What `deploy` names is held against the champion, where there is "
        "one, and secrets of webhooks against one another, as far as they are set here; both are warned of. "
        "Nothing is written.",
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
        json_line({"ok": False, "file": args.file, "problems": plain_problems(error.problems), "warnings": []})
        return error.exit_code
    counts = {"tables": len(spec.data)}
    if spec.model is not None:
        counts |= {"candidates": len(spec.model.families), "checks": len(spec.checks)}
    if spec.steps:
        counts["steps"] = len(spec.steps)
    warnings = _warnings(spec)
    if args.json:
        about = {"ok": True, "file": args.file, "project": spec.project, **counts, "digest": spec.digest}
        json_line({**about, "problems": [], "warnings": plain_problems(warnings)})
    else:
        said = ", ".join(plural(count, noun[:-1]) for noun, count in counts.items() if count or spec.model)
        data(f"{args.file}: ok: {said}")
        say_missing(spec)
        for problem in warnings:
            say_problem(problem, "warning")
    return 0


def _warnings(spec: Spec) -> list[Problem]:
    """Return what is right in the file and may be wrong here: what secrets hold, and which columns a model has."""
    if not spec.triggers:
        return _columns(spec)
    from modelyard.automation.triggers.secret import shared_secrets

    return [*shared_secrets(spec), *_columns(spec)]


def _columns(spec: Spec) -> list[Problem]:
    """Return what only a model that is there can tell; nothing where there is none."""
    from modelyard._kit.errors import ModelyardError, Problem
    from modelyard.spec.held import model_warnings, names_something
    from modelyard.store import open_store, store_exists

    try:
        if not names_something(spec) or not store_exists(spec.root, file=spec.path.name):
            return []
        with open_store(spec.root, file=spec.path.name) as store:
            return list(model_warnings(spec, store))
    except ModelyardError as error:
        # A file is right or wrong wherever it is looked at; the store may be out of reach there.
        p = error.problem
        message = f"what `deploy` names was not held against the model: {p.message}"
        return [Problem(p.code, message, p.where, p.hint)]
