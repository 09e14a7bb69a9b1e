"""A worker process: `python -m modelyard.pipeline.worker`, fed with tasks over a socket.

The process stays warm, so that the libraries a step needs are imported once. It dies with the runner, even if that
is killed with -9: work that nobody will record must not go on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from modelyard.pipeline.execute import Task, execute
from modelyard.store import open_store

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Take tasks from the socket until it closes.

    Args:
        arguments: File descriptor of the socket, id of the runner's process, folder of the project.
    """
    fd, parent, root = int(arguments[0]), int(arguments[1]), Path(arguments[2])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1  # the runner died before we asked to die with it
    # Ctrl-C reaches the whole group; the runner decides what happens to its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A step that prints must not write into the runner's data on stdout.
    os.dup2(2, 1)
    sys.path.insert(0, str(root))
    store = open_store(root)
    decode = msgspec.json.Decoder(Task).decode
    with Connection(fd) as pipe:
        while True:
            try:
                task = decode(pipe.recv_bytes())
            except EOFError:
                return 0
            pipe.send_bytes(msgspec.json.encode(execute(task, store)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
