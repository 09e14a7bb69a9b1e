"""`modelyard bisect`: find the first bad run, and say what changed there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from modelyard._kit.clock import as_text
from modelyard._kit.text import number, plural
from modelyard.cli.output import data, json_line, paint, say
from modelyard.cli.project import add_file, add_json, open_existing

if TYPE_CHECKING:
    from modelyard.pipeline.bisect import Bisected
    from modelyard.store import Store

__all__ = ["add", "run"]

_SAYS = {
    "data": "the data",
    "code": "the code",
    "parameters": "parameters",
    "environment": "the environment",
    "world": "something outside",
}


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "bisect",
        help="find the first bad run, and say what changed there",
        description="Find the first bad run after the last good one among those that are recorded, and say whether "
        "data, code, parameters or environment changed there, at which step, and how. Nothing is run: each run is "
        "judged by what it recorded. A run is bad when it failed, or as one of the options says.",
        epilog="example:\n  modelyard bisect --metric roc_auc --worse-than 0.9",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("good", nargs="?", default="", metavar="GOOD", help="a good run (default: the newest one)")
    parser.add_argument("bad", nargs="?", default="", metavar="BAD", help="a bad run (default: the newest one)")
    parser.add_argument("--check", default="", metavar="NAME", help="bad: this check failed")
    parser.add_argument("--step", default="", metavar="NAME", help="bad: this step failed, whichever partition")
    parser.add_argument("--metric", default="", metavar="NAME", help="bad: this measure is worse than --worse-than")
    parser.add_argument("--worse-than", type=float, default=None, metavar="X", help="the last value that is still good")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Bisect and print."""
    from modelyard.pipeline.bisect import asked, bisect

    question = asked(step=args.step, check=args.check, metric=args.metric, worse_than=args.worse_than)
    with open_existing(args) as store:
        result = bisect(store, question, good=args.good, bad=args.bad)
        if args.json:
            json_line(result)
        else:
            _print(result, store)
    return 0


def _print(result: Bisected, store: Store) -> None:
    from modelyard.pipeline.bisect import verdicts
    from modelyard.pipeline.commits import commit_of

    times = {one.run: one.time for one in result.judged}
    changed = " and ".join(_SAYS[kind] for kind in result.kinds)
    said = f"{changed} changed" if changed else "nothing that is recorded changed: see whether it is chance"
    data(f"{paint(result.first_bad, 'red')} is the first bad run ({result.question}): {paint(said, 'bold')}")
    data(f"  began {as_text(times[result.first_bad])}; the last good one is {result.last_good}")
    if result.between:
        data(f"  {plural(len(result.between), 'run')} between them without a verdict: {', '.join(result.between[:4])}")
    for change in result.changes:
        data(f"\nstep {change.step}, {change.kind}: {change.what}")
        for line in change.diff.splitlines():
            data(f"  {paint(line, {'+': 'green', '-': 'red'}.get(line[:1], ''))}")
        for file in change.files[:3]:
            if commit := commit_of(store, result.first_bad, change.step, file):
                data(f"  commit {commit}")
    if result.tables:
        data("\ntables that differ")
        for table in result.tables:
            data(f"  {table}")
    values = [one for one in result.judged if one.value is not None]
    if values:
        data(f"\n{', '.join(number(one.value) for one in values[-12:] if one.value is not None)}")
    say(f"{plural(len(result.judged), 'run')} looked at, oldest first: {verdicts(result.judged)}")
    if not result.steady:
        say("note: it went to and fro; the first bad run after the last good one is named")
    if result.target:
        say(f"next: modelyard replay {result.first_bad} {result.target}")
