"""`modelyard ui`: open the pages of the project in a browser."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from modelyard.cli.arguments import port
from modelyard.cli.output import say
from modelyard.cli.project import add_file, open_existing

__all__ = ["add", "run"]

PORT = 8500


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "ui",
        help="open the pages",
        description="Serve read-only pages over what the project's ledger holds, on this machine alone, until Ctrl-C.",
        epilog="example:\n  modelyard ui --port 8600 --no-open",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=port, default=PORT, help=f"port, 0 for a free one (default: {PORT})")
    parser.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=sys.stdout.isatty(),
        help="open the first page in the browser (default: where a person looks at the output)",
    )
    add_file(parser)


def run(args: argparse.Namespace) -> int:
    """Become the process that serves the pages."""
    with open_existing(args):
        # Said here, before another process is started.
        root = Path(args.file).resolve().parent
    command = [sys.executable, "-m", "modelyard.web", "--project", str(root), "--port", str(args.port)]
    command.append("--open" if args.open else "--no-open")
    say(f"starting the pages of {root.name}")
    sys.stdout.flush()
    # The pages are another face, reached by process: this one becomes it, so that signals and exit code are its own.
    os.execv(sys.executable, command)  # noqa: S606 - a list of our own words, no shell
