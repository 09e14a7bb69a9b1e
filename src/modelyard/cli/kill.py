"""`modelyard kill`: switch an endpoint off at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from modelyard._kit.actor import user
from modelyard._kit.errors import ModelyardError
from modelyard.cli.output import data, json_line
from modelyard.cli.project import add_file, add_json, endpoint_in, open_existing

__all__ = ["add", "run"]

# Why nothing can be written, of whatever store: nothing of it is the fault of what was asked.
_UNWRITTEN = frozenset(
    (
        "disk-full",
        "ledger-locked",
        "ledger-unreadable",
        "store-full",
        "store-not-writable",
        "store-refused",
        "store-slow",
        "store-unreachable",
        "system",
    )
)


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "kill",
        help="switch an endpoint off at once",
        description="Switch an endpoint off: within a second each of its servers answers 503 to whoever asks the model "
        "and says that it is not ready. The ledger keeps who did it and why; callers are not told why. A server that "
        "is started meanwhile is off too. `modelyard revive` switches it on again. Where the ledger cannot be written "
        "(a full disk), the command says which processes to end instead.",
        epilog="example:\n  modelyard kill income --reason 'harmful answers since noon'",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("endpoint", metavar="ENDPOINT", help="which, or the name of a stage")
    parser.add_argument("--reason", required=True, help="why, for the record")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Switch it off.

    Raises:
        ModelyardError: That cannot be written down, so its servers go on (`kill-unwritten`).
    """
    from modelyard.deploy.switch import kill

    endpoint = args.endpoint
    try:
        with open_existing(args, model=True) as store:
            endpoint = endpoint_in(args, store)
            was = kill(store, endpoint, reason=args.reason, actor=user())
    except (ModelyardError, OSError) as error:
        if isinstance(error, ModelyardError) and error.code not in _UNWRITTEN:
            raise
        raise _unwritten(error, Path(args.file).resolve().parent, endpoint) from error
    if args.json:
        json_line({"endpoint": endpoint, "killed": True, "was": was})
    elif was is not None:
        data(f"{endpoint} is off already {was}")
    else:
        data(f"{endpoint} is switched off; `modelyard revive {endpoint}` switches it on again")
    return 0


def _unwritten(error: ModelyardError | OSError, project: Path, endpoint: str) -> ModelyardError:
    """Say that an endpoint goes on answering, and what ends its servers without writing anything."""
    from modelyard.deploy.running import running

    why = error.problem.message if isinstance(error, ModelyardError) else str(error)
    pids = running(project, endpoint)
    if pids:
        hint = f"end what serves it on this machine: `kill {' '.join(map(str, pids))}`"
    else:
        hint = "no server of it is seen on this machine; where it runs, end its process with `kill PID`"
    hint += "; where a service manager would start it again: `systemctl stop SERVICE`; then see to the cause and repeat"
    hint += " this command before it is started"
    return ModelyardError("kill-unwritten", f"`{endpoint}` is not switched off and goes on answering: {why}", hint=hint)
