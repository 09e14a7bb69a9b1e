"""`modelyard replay`: run one recorded step again on the inputs it had."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import NotFound, UserError
from modelyard._kit.text import seconds_text
from modelyard.cli.debugger import debug
from modelyard.cli.output import MARKS, data, json_line, paint, say
from modelyard.cli.project import add_file, add_json, open_existing

if TYPE_CHECKING:
    from modelyard.pipeline.replay import Replayed
    from modelyard.records import Run
    from modelyard.store import Store

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "replay",
        help="run one recorded step again on the inputs it had",
        description="Run just this step again: the same inputs from the store, the same arguments, today's code. "
        "Nothing is recorded and nothing is promoted. Says whether the outcome is the same (exit 0, otherwise 1), and "
        "what changed in code and environment since. Left out, RUN and STEP are the newest step that failed.",
        epilog="example:\n  modelyard replay --pdb",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_id", nargs="?", default="", metavar="RUN", help="the run; or a STEP of the newest run")
    parser.add_argument("step", nargs="?", default="", metavar="STEP", help="the step (default: the one that failed)")
    parser.add_argument("--pdb", action="store_true", help="open a debugger where the user's code stood at the error")
    parser.add_argument("--old-code", action="store_true", help="run the project's code as it was then")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Replay the step and print what came of it."""
    from modelyard.pipeline.replay import replay

    if args.pdb and args.json:
        raise UserError("cli-value", "--pdb talks to a person, --json to a program", hint="leave one of them out")
    with open_existing(args) as store:
        found, step = _meant(store, args.run_id, args.step)
        say(f"… {step} of {found.id}")
        result = replay(store, found, step, old_code=args.old_code, caught=debug if args.pdb else None)
    if args.json:
        json_line(result)
    else:
        _print(result)
    return 0 if result.same else 1


def _meant(store: Store, run_id: str, step: str) -> tuple[Run, str]:
    from modelyard.pipeline.replay import newest_failed

    if not run_id:
        return newest_failed(store)
    if not run_id.startswith("run-"):
        if step:
            raise NotFound.of("run", run_id, [r.id for r in store.ledger.runs()])
        return _newest_with(store, run_id), run_id
    found = store.ledger.run(run_id)
    if found is None:
        raise NotFound.of("run", run_id, [r.id for r in store.ledger.runs()])
    failed = next((s.name for s in found.steps if s.status == "failed"), "")
    if not step and not failed:
        names = ", ".join(s.name for s in found.steps[:8])
        raise UserError("replay-step", f"no step of {run_id} failed", hint=f"name one: {names}")
    return found, step or failed


def _newest_with(store: Store, step: str) -> Run:
    names: set[str] = set()
    for listed in store.ledger.runs(limit=50):
        found = store.ledger.run(listed.id)
        for one in found.steps if found else ():
            names.add(one.name)
            if one.name == step and one.status in ("succeeded", "cached", "failed") and found is not None:
                return found
    raise NotFound.of("step", step, names)


def _print(result: Replayed) -> None:
    mark = "passed" if result.same else "failed"
    how = "the same" if result.same else "another outcome"
    ended = "failed" if result.now else "succeeded"
    took = seconds_text(result.seconds)
    data(f"{paint(MARKS[mark], mark)} {result.step} of {result.run} {ended} in {took}: {how}")
    for line in result.differences:
        data(f"  {line}")
    if result.now is not None:
        place = f" {result.now.where}" if result.now.where else ""
        data(f"  error[{result.now.code}]{place}: {result.now.message}")
        if result.now.hint:
            data(f"  hint: {result.now.hint}")
    if result.changes:
        data("\nsince then")
        for change in result.changes:
            data(f"  {change.kind}: {change.what}")
            for line in change.diff.splitlines():
                data(f"    {paint(line, _colour(line))}")
    elif not result.same:
        data("  neither code nor environment changed since then")
    for note in result.notes:
        say(f"note: {note}")


def _colour(line: str) -> str:
    return {"+": "green", "-": "red"}.get(line[:1], "")
