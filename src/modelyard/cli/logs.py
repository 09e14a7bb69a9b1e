"""`modelyard logs`: everything that is known of one id, from the trigger to the request, in the order of time."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import NotFound, UserError
from modelyard._kit.fields import parse_duration
from modelyard._kit.stopping import stopped
from modelyard.cli.arguments import whole
from modelyard.cli.output import data, json_line, paint, say
from modelyard.cli.project import add_file, add_json, load_spec, open_existing
from modelyard.cli.stopping import stoppable

if TYPE_CHECKING:
    from modelyard.logs import Line
    from modelyard.pipeline.trail import Asked
    from modelyard.store import Store

__all__ = ["add", "run"]

# Seconds between two looks while lines are followed.
_PAUSE = 0.5
# Runs that are looked through for the name of a step, where none is named.
_BACK = 50
_COLOURS = {"warning": "yellow", "error": "red", "critical": "red", "debug": "dim"}


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "logs",
        help="what steps and servers said, from trigger to request",
        description="Show everything that is known of one id in the order of time: the trigger that asked for a run, "
        "its steps with what they printed and logged, the deployment, and the requests that its model answered. The id "
        "is that of a run, a trace (which all of them share), a fire or a request; left out, the newest run.",
        epilog="example:\n  modelyard logs run-1k2jv8 --step train.lightgbm\n  modelyard logs --follow",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("id", nargs="?", default="", metavar="ID", help="of a run, a trace, a fire or a request")
    parser.add_argument("--step", default="", metavar="STEP", help="only what this step said")
    parser.add_argument(
        "--since", default="", metavar="WHEN", help="only from then on: `2h`, `2026-11-20`; of all runs"
    )
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until the run ends or Ctrl-C")
    parser.add_argument(
        "--requests", type=whole(0), default=20, metavar="N", help="the newest N requests (default: 20)"
    )
    parser.add_argument(
        "--send",
        action="store_true",
        help="hand over now what the sinks of `logs.to` have not taken; with --follow: go on",
    )
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the lines."""
    from modelyard.pipeline.trail import Asked, resolve, trail

    since = _since(args.since)
    with open_existing(args) as store:
        if args.send:
            return _send(args, store)
        if args.id:
            asked = resolve(store, args.id)
        elif since or args.follow:
            asked = Asked()
        else:
            newest = store.ledger.runs(limit=1)
            if not newest:
                raise NotFound("run-not-found", "there is no run yet", hint="`modelyard run` makes the first")
            asked = resolve(store, newest[0].id)
        if args.step:
            _see_known(store, asked, args.step)
        asked = replace(asked, step=args.step, since=since)
        if args.follow:
            stoppable()
            _follow(store, asked, args)
        else:
            for line in trail(store, asked, requests=args.requests):
                _print(line, args.json)
    return 0


def _see_known(store: Store, asked: Asked, step: str) -> None:
    """Refuse a step that no run in question has.

    Raises:
        NotFound: There is no such step (`step-not-found`).
    """
    from modelyard.pipeline.recompute import plan_of

    known: set[str] = set()
    for run in asked.runs or [run.id for run in store.ledger.runs(limit=_BACK)]:
        if (found := store.ledger.run(run)) is not None:
            known.update(one.name for one in found.steps)
            # One that has not begun yet may say something later.
            with suppress(NotFound):
                known.update(one.name for one in plan_of(found, store).steps)
    # Where nothing was run yet, whatever comes is new.
    if known and step not in known and (asked.runs or store.ledger.latest(step) is None):
        raise NotFound.of("step", step, known)


def _since(text: str) -> float:
    if not text:
        return 0.0
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(
            "cli-value", f"--since is `{text}`", hint="for example `30m`, `2h`, `2026-11-20` or `2026-11-20T14:00`"
        ) from error
    return (when if when.tzinfo else when.astimezone()).timestamp()


def _follow(store: Store, asked: Asked, args: argparse.Namespace) -> None:
    """Print what there is and what comes; a run that has ended says nothing more."""
    from modelyard.pipeline.trail import Follower, trail

    follower = Follower(store, asked)
    if asked.ids or asked.since:
        follower.begin(now=time.time())
        for line in trail(store, asked, requests=args.requests):
            _print(line, args.json)
    else:
        follower.begin(now=time.time())
    while True:
        stopped()
        over = args.id.startswith("run-") and _over(store, args.id)
        for line in follower.new():
            _print(line, args.json)
        if over:
            return
        time.sleep(_PAUSE)


def _over(store: Store, run_id: str) -> bool:
    from modelyard.store.local import settle

    found = store.ledger.run(run_id)
    return found is None or settle(found, store).status != "running"


def _send(args: argparse.Namespace, store: Store) -> int:
    from modelyard.logs.ship import Shipper

    spec = load_spec(args, files=False)
    with Shipper(store, spec.logs, project=spec.project) as shipper:
        if args.follow and spec.logs.to:
            # As `modelyard up` has it done: until somebody stops it.
            stoppable()
            shipper.start()
            say(f"handing over to {', '.join(spec.logs.to)}")
            while True:
                stopped()
                time.sleep(_PAUSE)
        left = shipper.send_all()
    for name, count in left.items():
        trouble = shipper.trouble.get(name, "")
        text = f"{count:,} lines wait for {name}{f': {trouble}' if trouble else ''}" if count else f"{name} has all"
        json_line({"sink": name, "waiting": count, "trouble": trouble}) if args.json else data(text)
    if not left:
        say("no sink is declared; `logs: {to: [...]}` names them")
    return 3 if any(left.values()) else 0


def _print(line: Line, as_json: bool) -> None:
    if as_json:
        json_line(line)
        return
    when = datetime.fromtimestamp(line.time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    where = line.step or line.endpoint or ("run" if line.run else line.fire)
    if line.attempt > 1:
        where += f" ({line.attempt})"
    said = line.message if line.logger in ("ledger", "stdout", "stderr", "native") else f"{line.logger}: {line.message}"
    if line.request:
        said += f" [{line.request}]"
    mark = "·" if line.logger == "ledger" else " "
    head = f"{when}  {line.level:<8} {where:<18} {mark} "
    colour = _COLOURS.get(line.level, "")
    for at, part in enumerate(said.split("\n")):
        data(
            paint(f"{head if not at else ' ' * len(head)}{part}", colour)
            if colour
            else f"{head if not at else ' ' * len(head)}{part}"
        )
