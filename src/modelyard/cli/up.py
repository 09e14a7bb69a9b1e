"""`modelyard up`: run schedules, triggers, the endpoint, the pages and the alerts, until it is stopped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.cli.output import json_line, paint, say
from modelyard.cli.project import FILE

if TYPE_CHECKING:
    from modelyard.automation.notes import Note

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "up",
        help="run schedules, triggers, the endpoint, the pages and the alerts",
        description="Run everything that one or several projects need in one tree of processes, until Ctrl-C, SIGTERM "
        "or `modelyard down`. What is killed goes on from its finished steps at the next start; several machines may "
        "run it on one store.",
        epilog="example:\n  modelyard up\n  modelyard up -f a/modelyard.yaml -f b/modelyard.yaml --runs 2 --no-ui",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        metavar="FILE",
        help=f"the declaration; may be given several times (default: {FILE})",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of the endpoint (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8080, help="port of the endpoint (default: %(default)s)")
    parser.add_argument("--ui-port", type=_port, default=8500, help="port of the pages (default: %(default)s)")
    parser.add_argument("--no-serve", action="store_true", help="do not serve the champion")
    parser.add_argument("--no-ui", action="store_true", help="do not serve the pages")
    parser.add_argument(
        "--runs", type=int, default=1, metavar="N", help="runs at a time over several projects (default: %(default)s)"
    )
    parser.add_argument(
        "--grace",
        default="30s",
        metavar="TIME",
        help="what the run under way may take to end when this is stopped; then it is cut off, and goes on at the "
        "next start (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print what happens as lines of JSON on stdout")


def run(args: argparse.Namespace) -> int:
    """Be the daemon."""
    from modelyard.automation.daemon import Daemon

    return Daemon(_settings(args), json_line if args.json else _print).run()


def _settings(args: argparse.Namespace) -> Any:
    from modelyard._kit.errors import UserError
    from modelyard._kit.fields import parse_duration
    from modelyard.automation.daemon import Settings

    if args.runs < 1:
        raise UserError("cli-value", f"--runs is `{args.runs}`", hint="give 1 or more")
    try:
        grace = 0.0 if args.grace == "0" else parse_duration(args.grace)
    except ValueError:
        raise UserError("cli-value", f"--grace is `{args.grace}`", hint="write it as `30s` or `5m`") from None
    return Settings(
        files=tuple(Path(file) for file in args.file or [FILE]),
        host=args.host,
        port=args.port,
        ui_port=args.ui_port,
        serve=not args.no_serve,
        ui=not args.no_ui,
        runs=args.runs,
        grace=grace,
    )


def _print(note: Note) -> None:
    import sys
    import time

    at = time.strftime("%H:%M:%S", time.localtime(note.time))
    who = f"{note.project}: " if note.project else ""
    line = f"{note.name} | {note.text}" if note.what == "said" else note.text
    say(f"{paint(at, 'dim', sys.stderr)} {who}{line}")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; use 0 to 65535")
    return port
