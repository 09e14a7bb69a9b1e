"""`python -m modelyard.automation.alerts PROJECT`: send a project's alerts until it is told to stop."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from modelyard._kit.errors import Busy, ModelyardError
from modelyard.automation.alerts.rules import READ
from modelyard.automation.alerts.sender import Sender
from modelyard.spec import load
from modelyard.store import Store, open_store

__all__ = ["main"]

# Seconds between two attempts to become the sender, and for which one that has nothing to do looks back once more.
_STANDBY = 2.0
_NICE = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, send, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.automation.alerts",
        description="Send the alerts of a project: read what is new in its ledger, and hand messages to their targets.",
        epilog="example: python -m modelyard.automation.alerts . --idle 60",
    )
    parser.add_argument("project", type=Path, help="folder of the project, or its modelyard.yaml")
    parser.add_argument(
        "--idle", type=float, default=None, metavar="SECONDS", help="end after so long without work (default: never)"
    )
    given = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if given.idle is not None:
        # Started by a run, it takes only what the run leaves.
        os.nice(_NICE)
    try:
        spec = load(given.project, files=False)
        with open_store(spec.root, file=spec.path.name) as store:
            while not stop.is_set():
                try:
                    read = Sender(spec, store, say=_say).serve(stop, idle=given.idle)
                except Busy:
                    if given.idle is not None:
                        # There is a sender, which is all that was wanted.
                        return 0
                    stop.wait(_STANDBY)
                    continue
                if given.idle is not None and not _came_late(store, read, stop):
                    return 0
    except ModelyardError as error:
        _say(str(error))
        return error.exit_code
    return 0


def _came_late(store: Store, read: int, stop: threading.Event) -> bool:
    """Say whether something happened just as the sender ended, when others still believed that it was there."""
    stop.wait(_STANDBY)
    return not stop.is_set() and next(store.ledger.events(after=read, kinds=READ, limit=1), None) is not None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
