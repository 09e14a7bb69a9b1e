"""`modelyard alerts`: list what was sent and what waits, try a target, acknowledge."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.clock import as_text
from modelyard.cli.arguments import whole
from modelyard.cli.output import data, json_line, paint, say, table
from modelyard.cli.project import add_file, add_json, load_spec, open_existing

if TYPE_CHECKING:
    from modelyard.records import Alert

__all__ = ["add", "run"]

_STATES = ("waiting", "sent", "failed")
_COLOURS = {"sent": "green", "failed": "red", "waiting": "yellow"}


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "alerts",
        help="list alerts, try a target, acknowledge",
        description="`list` shows the newest alerts: sent, waiting, given up, and why. `test` sends a message to every "
        "target (or one) now and says what it answered. `ack` notes that somebody knows: the alert goes no further and "
        "is not repeated until its trouble is over. `send` hands over what is due and waits for it: for a container "
        "that ends with its run. `logicapp` prints an Azure Logic Apps workflow that takes our requests.",
        epilog="example:\n  modelyard alerts --state waiting\n  modelyard alerts test ml-team\n"
        "  modelyard alerts ack alert-3f2a",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = ("list", "test", "ack", "send", "logicapp")
    parser.add_argument("action", nargs="?", choices=actions, default="list", help="what to do (default: list)")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a target, or the id of an alert for `ack`")
    parser.add_argument("--state", choices=_STATES, help="only alerts in this state")
    parser.add_argument("--limit", type=whole(0), default=20, help="how many at most, 0 for all (default: 20)")
    parser.add_argument(
        "--for", dest="limit_s", default="1m", metavar="DURATION", help="how long `send` tries at most (default: 1m)"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="what `ack` notes")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do what is asked."""
    match args.action:
        case "test":
            return _test(args)
        case "ack":
            return _ack(args)
        case "send":
            return _send(args)
        case "logicapp":
            from modelyard.automation.alerts.logicapp import workflow

            json_line(workflow()) if args.json else data(_pretty(workflow()))
            return 0
    return _list(args)


def _pretty(value: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _list(args: argparse.Namespace) -> int:
    states = (args.state,) if args.state else ()
    with open_existing(args) as store:
        found = store.ledger.alerts(states=states, target=args.name, newest=True, limit=max(0, args.limit))
    if args.json:
        json_line(found)
        return 0
    if not found:
        say("no alert yet; `modelyard alerts test` tries the targets, `modelyard explain alerts` says how to add one")
        return 0
    rows = [
        (
            paint(alert.state, _COLOURS[alert.state]),
            as_text(alert.at),
            alert.target,
            alert.on,
            alert.id,
            "yes" if alert.acked else "",
            alert.title + _why(alert),
        )
        for alert in found
    ]
    table(("state", "when", "to", "about", "alert", "known", "what"), rows)
    return 0


def _why(alert: Alert) -> str:
    if alert.state == "failed":
        return f" (given up: {alert.error})"
    if alert.attempt and alert.state == "waiting":
        return f" (again {as_text(alert.next)}: {alert.error})"
    return f" (not before {as_text(alert.due)})" if alert.state == "waiting" and alert.due > alert.queued else ""


def _test(args: argparse.Namespace) -> int:
    from modelyard._kit.errors import Refused, UserError
    from modelyard.automation.alerts.trying import try_targets

    spec = load_spec(args, files=False)
    if not spec.alerts:
        raise UserError(
            "alert-no-target",
            f"`{spec.path.name}` names nobody who is to be told",
            hint='add `alerts: ["mailto:ml@example.org"]`; `modelyard explain alerts` says what there is',
        )
    failed = 0
    for outcome in try_targets(spec, args.name):
        failed += bool(outcome.error)
        if args.json:
            json_line({"target": outcome.target, "taken": not outcome.error, "said": outcome.error or outcome.said})
        elif outcome.error:
            data(f"{paint('✗', 'failed')} {outcome.target}: {outcome.error}")
        else:
            data(f"{paint('✓', 'passed')} {outcome.target}: {outcome.said}")
    if failed:
        raise Refused(
            "alert-undelivered",
            f"{failed} of the targets did not take the message",
            hint="mend the address, or what the target says above, and try again",
        )
    return 0


def _ack(args: argparse.Namespace) -> int:
    from modelyard._kit.errors import UserError
    from modelyard.automation.alerts.outbox import acknowledge

    if not args.name:
        raise UserError("alert-id", "`alerts ack` needs the id of an alert", hint="`modelyard alerts` lists them")
    with open_existing(args) as store:
        known = acknowledge(store, args.name, actor=user(), reason=args.reason)
    if args.json:
        json_line(known)
    for alert in known if not args.json else ():
        say(f"{alert.id} to {alert.target} is known: it goes no further and is not repeated until it is over")
    return 0


def _send(args: argparse.Namespace) -> int:
    from modelyard._kit.errors import Refused, UserError
    from modelyard._kit.fields import parse_duration
    from modelyard.automation.alerts.flushing import send_now

    spec = load_spec(args, files=False)
    try:
        seconds = parse_duration(args.limit_s)
    except ValueError as error:
        raise UserError("cli-value", f"--for is `{args.limit_s}`", hint="for example `30s` or `5m`") from error
    with open_existing(args) as store:
        left = send_now(spec, store, seconds, say)
    if args.json:
        json_line(left)
    if left:
        raise Refused(
            "alert-undelivered",
            f"{len(left)} messages still wait: {left[0].error or 'their targets did not answer in time'}",
            hint="`modelyard alerts --state waiting` lists them; the next sender goes on with them",
        )
    return 0
