"""Who is at the keyboard, and with which command, for the record."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

__all__ = ["COMMANDS", "command", "user"]

# What is installed to be typed.
COMMANDS = ("modelyard", "yard")


def user() -> str:
    """Return `user:NAME` of this process; `user:uid-N` where the system knows no name, as in many containers."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"user:uid-{os.getuid()}"


def command() -> str:
    """Return what this process was started as, without its arguments: `modelyard run`, `python train.py`."""
    program, *words = sys.argv or [""]
    path = Path(program)
    if path.parts[-2:] == ("automation", "runner.py"):
        # The process in which the daemon runs what is due.
        return "modelyard up"
    if path.stem in COMMANDS or path.parts[-2:] == ("modelyard", "__main__.py"):
        return f"modelyard {words[0]}" if words and not words[0].startswith("-") else "modelyard"
    return f"python {path.name}" if path.suffix == ".py" else path.name
