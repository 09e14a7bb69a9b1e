"""A worker process, forked by its guard and fed with tasks over a socket.

The process stays warm, so that the libraries a step needs are imported once. It dies with its guard, and this with
the runner, even if that is killed with -9: work that nobody will record must not go on.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import msgspec

from modelyard.pipeline.accounting import own_peaks
from modelyard.pipeline.execute import Task, execute
from modelyard.store import open_store
from modelyard.store.opening import HANDED, open_address

__all__ = ["Stopped", "main"]


class Stopped(BaseException):
    """Raised in a step that is being stopped, so that its `finally` and `with` blocks run before the process ends."""


def main(fd: int, root: Path) -> int:
    """Take tasks from the socket until it closes.

    Args:
        fd: The socket.
        root: Folder of the project.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    # A step that prints must not write into the runner's data on stdout.
    os.dup2(2, 1)
    sys.path.insert(0, str(root))
    own_peaks()
    # Not for the steps: one that opens another project must find that one's store.
    handed = os.environ.pop(HANDED, "")
    store = open_address(root, handed) if handed else open_store(root)
    decode = msgspec.json.Decoder(Task).decode
    with Connection(fd) as pipe:
        try:
            while True:
                task = decode(pipe.recv_bytes())
                pipe.send_bytes(msgspec.json.encode(execute(task, store)))
        except EOFError:
            return 0
        except Stopped:
            return 128 + signal.SIGTERM


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second one would cut off the cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped
