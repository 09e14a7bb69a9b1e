"""`python tether.py PARENT COMMAND...`: become a command that dies with its parent, even if that is killed with -9.

Run by its path in an interpreter without site packages, so that it costs a few milliseconds; the command that it turns
into need know nothing of it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["tether"]

_PR_SET_PDEATHSIG = 1


def tether(parent: int) -> bool:
    """Have the system kill this process when the thread that started it ends; keeps through `exec`.

    Args:
        parent: Id of the parent's process.

    Returns:
        Whether the parent is still there; if not, this process should end.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


if __name__ == "__main__":
    if not tether(int(sys.argv[1])):
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - our own command line, no shell
