"""`modelyard profile`: look into running servers and steps, without starting them again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.text import plural, size_text
from modelyard.cli.arguments import real, whole
from modelyard.cli.output import data, json_line, say, table, write_output
from modelyard.cli.project import add_file, add_json, load_if_right

if TYPE_CHECKING:
    from modelyard.automation.profiling import Grown, Looked

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "profile",
        help="look into running servers and steps: where their time goes, or what grows in memory",
        description="Ask the running servers of this project (all their processes), or else its steps under way, where "
        "their CPU time goes: a table of the dearest functions, and a file for https://www.speedscope.app, which "
        "opens it without sending it anywhere. Nothing is started again, and nothing is sampled while nobody asks. "
        "Only the owner of the processes can ask, by a socket in .modelyard/profile. Native code is seen as the line "
        "of Python that called it; CPU of threads that it started itself is told as unseen. --memory tells what Python "
        "has made meanwhile and not let go of; it makes every allocation dearer as long as it looks.",
        epilog="example:\n  modelyard profile --seconds 10\n  modelyard profile train --wall\n"
        "  modelyard profile income --memory --seconds 60",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "target",
        nargs="?",
        default="",
        metavar="TARGET",
        help="endpoint, stage, step, or number of a process (default: the servers, or else the steps)",
    )
    parser.add_argument("--seconds", type=real(0.1, 3600), default=5.0, metavar="N", help="how long (default: 5)")
    parser.add_argument("--rate", type=real(1, 1000), default=100.0, metavar="N", help="looks a second (default: 100)")
    parser.add_argument("--wall", action="store_true", help="time on the clock, waiting included, not CPU")
    parser.add_argument("--memory", action="store_true", help="what grows in memory")
    parser.add_argument("--top", type=whole(1), default=15, metavar="N", help="lines of the table (default: 15)")
    parser.add_argument("--to", default="", metavar="FILE", help="where the speedscope file goes")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Look, write, print."""
    import msgspec

    from modelyard._kit.files import check_folder
    from modelyard.automation.profiling import Grown, Looked, chosen, look, speedscope

    root = Path(args.file).resolve().parent
    if args.to:
        # Not after a look that may take minutes.
        check_folder(Path(args.to))
    spec = load_if_right(args)[0] if args.target and Path(args.file).exists() else None
    of = chosen(root, spec.stages.get(args.target, args.target) if spec is not None else args.target)
    for one in of:
        say(f"looking into {one.pid} ({one.what}) for {args.seconds:g} s")
    told = look(of, seconds=args.seconds, rate=args.rate, memory=args.memory, wall=args.wall)
    if args.memory:
        if args.json:
            json_line(told)
        else:
            _print_memory([msgspec.convert(one, Grown) for one in told], args.top)
        return 0
    looked = [msgspec.convert(one, Looked) for one in told]
    to = Path(args.to or time.strftime("profile-%Y%m%d-%H%M%S.speedscope.json"))
    write_output(to, msgspec.json.encode(speedscope(looked, wall=args.wall)))
    if args.json:
        json_line({"file": str(to), "processes": told})
    else:
        _print(looked, args.top, wall=args.wall)
    say(f"{to} opens in https://www.speedscope.app, on your machine only")
    return 0


def _print(looked: Sequence[Looked], most: int, *, wall: bool) -> None:
    from modelyard.automation.profiling import top

    for one in looked:
        share = f"{one.cpu / one.seconds:.0%} of a core" if one.seconds else "nothing"
        text = f"{one.what} {one.pid}: {share}, {plural(one.looks, 'look')} in {one.seconds:.1f} s"
        data(f"{text}; to look took {one.cost:.1%} of a core, {one.unseen:.2f} s of CPU are not seen")
    data("")
    every = [found for found in top(looked, wall=wall) if found[3] > 0][:most]
    seconds = sum(sample.wall if wall else sample.cpu for one in looked for sample in one.samples) or 1.0
    head = ("own", "own %", "with calls", "function", "file")
    rows = [(f"{own:.2f} s", f"{own / seconds:.0%}", f"{all_:.2f} s", name, file) for name, file, own, all_ in every]
    table(head, rows, right=(0, 1, 2))


def _print_memory(grown: Sequence[Grown], most: int) -> None:
    for one in grown:
        before, after = one.resident
        text = f"{one.what} {one.pid}: Python made {size_text(one.grew)} on balance in {one.seconds:.1f} s"
        books = f"of which {size_text(one.overhead)} are the books of this look"
        data(f"{text}; it holds {size_text(after)}, before {size_text(before)}, {books}")
    data("")
    rows = [
        (size_text(place["bytes"]), f"{place['count']:,}", str(one.pid), " < ".join(reversed(place["stack"][-3:])))
        for one in grown
        for place in one.places[:most]
    ]
    table(("grew", "blocks", "process", "made at"), rows, right=(0, 1))
