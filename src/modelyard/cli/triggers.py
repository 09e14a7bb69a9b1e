"""`modelyard triggers`: the board of everything that starts runs; fire, pause and resume."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.clock import as_text
from modelyard.cli.output import MARKS, data, json_line, paint, say, table
from modelyard.cli.project import add_file, add_json, load_if_right

if TYPE_CHECKING:
    from modelyard.automation.board import Row
    from modelyard.records import Fire
    from modelyard.store import Store

__all__ = ["add", "run"]

_SHOWN = 20


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "triggers",
        help="the board of everything that starts runs: fire, pause, resume",
        description="Without an action: every trigger, what it did last, when it fires next, what was missed or left "
        "out and why. `show` tells all of one, `fire` asks for a run now, `pause` has what it sees dropped until "
        "`resume`.",
        epilog='example:\n  modelyard triggers\n  modelyard triggers fire orders --payload \'{"day": "2026-11-21"}\'\n'
        '  modelyard triggers pause schedule --reason "the source moves house"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", nargs="?", default="", choices=["", "show", "fire", "pause", "resume"], help="what")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="which trigger; `manual` for none of them")
    parser.add_argument("--payload", metavar="JSON", help="with `fire`: what the steps of the run get to read")
    parser.add_argument("--reason", default="", help="with `pause` and `resume`: why")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Show the board, or do what is asked."""
    from modelyard._kit.errors import UserError
    from modelyard.automation.board import board, find, remembered
    from modelyard.store import open_store

    if args.action and not args.name:
        raise UserError(
            "trigger-name", f"`triggers {args.action}` needs a name", hint="`modelyard triggers` lists them"
        )
    spec, problem = load_if_right(args)
    if problem:
        # Who has to stop a trigger at once need not mend the file first.
        say(f"the declaration cannot be read, what follows is what the ledger knows: {problem}")
    file = Path(args.file).resolve()
    # Whoever asks for the first run of all may do so before anything was run.
    with open_store(file.parent, file=file.name) as store:
        rows = board(spec, store) if spec else remembered(store)
        if not args.action:
            json_line(rows) if args.json else _print(rows)
            return 0
        row = find(rows, args.name)
        if args.action == "show":
            _show(row, store, as_json=args.json)
        elif args.action == "fire":
            _fire(row, store, args)
        else:
            _pause(row, store, args)
    return 0


def _fire(row: Row, store: Store, args: argparse.Namespace) -> None:
    from modelyard._kit.errors import UserError
    from modelyard.automation.board import fire_by_hand

    try:
        payload = None if args.payload is None else json.loads(args.payload)
    except ValueError as error:
        raise UserError("trigger-payload", f"--payload is not JSON: {error}", hint="quote it: '{\"a\": 1}'") from None
    fire = fire_by_hand(row.name, store, actor=user(), payload=payload)
    if args.json:
        json_line(fire)
        return
    data(fire.id)
    if row.paused:
        say(f"note: {row.name} is paused ({row.paused}); a fire by hand runs all the same")
    if not row.watched:
        say("it waits for `modelyard up`")


def _pause(row: Row, store: Store, args: argparse.Namespace) -> None:
    from modelyard._kit.errors import UserError
    from modelyard.automation.board import MANUAL, pause, resume

    if row.name == MANUAL:
        raise UserError("trigger-name", "nobody can be kept from asking by hand", hint="name a trigger of the file")
    (pause if args.action == "pause" else resume)(row.name, store, reason=args.reason, actor=user())
    if args.json:
        json_line({"trigger": row.name, "paused": args.action == "pause", "reason": args.reason})
    elif args.action == "pause":
        say(f"{row.name} is paused: what it sees is dropped, until `modelyard triggers resume {row.name}`")
    else:
        say(f"{row.name} goes on")


def _print(rows: tuple[Row, ...]) -> None:
    table(
        ("", "trigger", "kind", "owner", "last fire", "next", "waiting", "missed", "why"),
        [
            (
                _mark(row),
                row.name,
                row.kind,
                row.owner,
                _when(row.last),
                "" if not row.next else as_text(row.next),
                str(row.queued or ""),
                str(row.missed or ""),
                (f"paused: {row.paused}; " if row.paused else "") + (row.error or row.why),
            )
            for row in rows
        ],
        right=(6, 7),
    )
    if not any(row.watched for row in rows):
        say("no daemon looks after them here: `modelyard up`")


def _show(row: Row, store: Store, *, as_json: bool) -> None:
    fires = store.ledger.fires(trigger=row.name, newest=True, limit=_SHOWN)
    if as_json:
        json_line({"trigger": row, "fires": fires})
        return
    facts = {
        "looks at": row.about,
        "owner": row.owner,
        "paused": row.paused,
        "last look": f"{time.time() - row.looked:.0f} s ago" if row.looked else "",
        "last look failed": row.error,
        "next": row.next_text,
        "missed": str(row.missed or ""),
        "now": row.why,
    }
    data(f"{row.name} ({row.kind})")
    for name, text in facts.items():
        if text:
            data(f"  {name:<17} {text}")
    if fires:
        data("")
        table(
            ("", "fire", "due", "state", "run", "what", "why"),
            [
                (
                    paint(MARKS.get(fire.state, "-"), fire.state),
                    fire.id,
                    as_text(fire.due),
                    fire.state,
                    fire.run,
                    _items(fire),
                    fire.why,
                )
                for fire in fires
            ],
        )


def _items(fire: Fire) -> str:
    if not fire.items:
        return ""
    more = f" and {len(fire.items) - 1} more" if len(fire.items) > 1 else ""
    return f"{fire.items[0].name} {fire.items[0].change}{more}"


def _mark(row: Row) -> str:
    if row.error:
        return paint(MARKS["failed"], "failed")
    if row.paused:
        return "‖"
    if row.last is None:
        return ""
    return paint(MARKS.get(row.last.state, "…"), row.last.state)


def _when(fire: Fire | None) -> str:
    return "" if fire is None else f"{as_text(fire.queued)} {fire.state}"
