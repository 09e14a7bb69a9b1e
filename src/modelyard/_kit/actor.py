"""Who is at the keyboard, for the record."""

from __future__ import annotations

import getpass
import os

__all__ = ["user"]


def user() -> str:
    """Return `user:NAME` of this process; `user:uid-N` where the system knows no name, as in many containers."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"user:uid-{os.getuid()}"
