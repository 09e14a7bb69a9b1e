"""A worker process, forked by its guard and fed with tasks over a socket.

The process stays warm, so that the libraries a step needs are imported once. It dies with its guard, and this with
the runner, even if that is killed with -9: work that nobody will record must not go on.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from contextlib import closing, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

import msgspec

from modelyard._kit.hearing import Ear
from modelyard.logs import listening
from modelyard.pipeline.accounting import own_peaks
from modelyard.pipeline.execute import Task, execute
from modelyard.pipeline.network import close_here
from modelyard.pipeline.scratch import open_handed
from modelyard.store import open_store
from modelyard.store.opening import HANDED

__all__ = ["Stopped", "main"]

# Before the reason.
_HALF = "only Python's own sockets are closed to it, not those of native code and of processes that it starts"


class Stopped(BaseException):
    """Raised in a step that is being stopped, so that its `finally` and `with` blocks run before the process ends."""


def main(fd: int, root: Path, *, network: bool) -> int:
    """Take tasks from the socket until it closes.

    Args:
        fd: The socket.
        root: Folder of the project.
        network: Whether its tasks may use the network; if not, neither may native code and what they start.
    """
    # A store needs no connection for what a step takes and leaves: tables and blobs are files.
    trouble = "" if network else close_here()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    # Stdout is a pipe to the runner, which reads what is written past Python: into the logs, not into its own stdout.
    terminal = os.dup(2)
    os.dup2(1, 2)
    sys.stdout = sys.stderr = os.fdopen(terminal, "w", 1, encoding="utf-8", errors="backslashreplace")
    # A crash in native code says where it was.
    faulthandler.enable(2)
    sys.path.insert(0, str(root))
    own_peaks()
    # Not for the steps: one that opens another project must find that one's store.
    handed = os.environ.pop(HANDED, "")
    decode = msgspec.json.Decoder(Task).decode
    opened = open_handed(root, handed) if handed else nullcontext(open_store(root))
    with Connection(fd) as pipe, listening(), opened as store, closing(Ear(root, "")) as ear:
        try:
            while True:
                task = decode(pipe.recv_bytes())
                ear.what = f"step {task.step.name}"
                outcome = execute(task, store)
                if trouble:
                    outcome = msgspec.structs.replace(outcome, notes=(*outcome.notes, f"{_HALF}: {trouble}"))
                pipe.send_bytes(msgspec.json.encode(outcome))
                ear.what = ""
        except EOFError:
            return 0
        except Stopped:
            return 128 + signal.SIGTERM


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second one would cut off the cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped
