"""`--every`: do a verb again and again until Ctrl-C."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from modelyard._kit.errors import ModelyardError, UserError
from modelyard._kit.fields import parse_duration
from modelyard._kit.stopping import stopped
from modelyard.cli.output import say, tell
from modelyard.cli.stopping import stoppable

__all__ = ["add_every", "repeated"]

# Seconds of a wait between two looks whether it is to end.
_LOOK = 1.0


def add_every(parser: argparse.ArgumentParser) -> None:
    """Add `--every DURATION`."""
    parser.add_argument("--every", metavar="DURATION", help="again and again, e.g. `1h`, until Ctrl-C")


def repeated(args: argparse.Namespace, once: Callable[[], int]) -> int:
    """Do it once, or with `--every` until Ctrl-C.

    Repeated, a check that failed or a project that is held is told, and the next time comes; a mistake of the user's
    ends it, since time does not mend it.
    """
    if not args.every:
        return once()
    from modelyard.automation import every

    stoppable()
    try:
        seconds = parse_duration(args.every)
    except ValueError as error:
        raise UserError("cli-value", f"--every is `{args.every}`", hint="for example `30m`, `1h` or `1d`") from error
    if not seconds:
        raise UserError("cli-value", f"--every is `{args.every}`", hint="give a time above 0, for example `30m`")

    def guarded() -> None:
        try:
            once()
        except UserError:
            raise
        except ModelyardError as error:
            tell(error, verb=args.verb, as_json=args.json)
        # Nobody should wait an hour for what was to end.
        stopped()
        say(f"again in {args.every}")

    every(seconds, guarded, wait=_wait)
    return 0


def _wait(seconds: float) -> bool:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        stopped()
        time.sleep(min(left, _LOOK))
    return False
