"""`python -m modelyard.web --project DIR`: serve the pages of a project on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modelyard._kit.errors import ModelyardError
from modelyard.web.server import PORT, serve

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, serve, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.web",
        description="Serve the pages of a project on this machine.",
        epilog="example: python -m modelyard.web --project . --port 8500 --open",
    )
    parser.add_argument("--project", type=Path, default=Path(), help="folder of the project (default: this one)")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=PORT, help=f"port, 0 for a free one (default: {PORT})")
    parser.add_argument(
        "--open", action=argparse.BooleanOptionalAction, default=False, help="open the first page in the browser"
    )
    given = parser.parse_args(arguments)
    if not 0 <= given.port <= 65535:
        parser.error(f"argument --port: {given.port} is no port; use 0 to 65535")
    try:
        serve(given.project, host=given.host, port=given.port, open_page=given.open)
    except ModelyardError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        # Ctrl-C is how it is meant to end.
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
