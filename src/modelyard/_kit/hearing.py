"""An ear for `modelyard profile`: a process can be asked, by its owner only, where it spends its time and memory.

A Unix socket with 0600 in `.modelyard/profile/`, which is closed to others as well, and a thread that sleeps in the
system until somebody connects: nothing is sampled, counted or imported before. Imports nothing but the standard
library and stays small: every server and every worker loads it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Ear", "folder_of", "reached", "sweep"]

_WHO = struct.Struct("3i")


def folder_of(root: Path) -> Path:
    """Return the folder with a socket for each process of a project that may be asked; `PID.sock`."""
    return root / ".modelyard" / "profile"


def sweep(root: Path) -> None:
    """Remove the sockets of processes that were killed: whoever copies a project may stumble over them."""
    for path in folder_of(root).glob("*.sock"):
        if not Path("/proc", path.stem).exists():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def reached(path: Path) -> Iterator[str]:
    """Give an address of a socket's file that is short: the system takes 107 bytes, and a project may lie deep."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Ear:
    """Hears who wants to look into this process, until it ends.

    Args:
        root: Folder of the project.
        what: What the process is, in words, e.g. `server of income`.

    Attributes:
        what: The same; may be changed.
        trouble: Why it hears nothing; empty where it does.
    """

    def __init__(self, root: Path, what: str) -> None:
        self.what = what
        self.trouble = ""
        self._path = folder_of(root) / f"{os.getpid()}.sock"
        self._socket: socket.socket | None = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.parent.chmod(0o700)
            # One before us had our number, and others were killed.
            self._path.unlink(missing_ok=True)
            sweep(root)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with reached(self._path) as address:
                self._socket.bind(address)
            self._path.chmod(0o600)
            self._socket.listen(1)
        except OSError as error:
            # Whoever cannot be looked into does its work all the same.
            self.trouble = str(error)
            self.close()
            return
        threading.Thread(target=self._hear, args=(self._socket,), name="profile", daemon=True).start()

    def close(self) -> None:
        """Hear nobody any more."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _hear(self, listening: socket.socket) -> None:
        while True:
            try:
                asked, _ = listening.accept()
            except OSError:
                return
            # Whatever is asked and whatever goes wrong, the next one is heard.
            with asked, contextlib.suppress(Exception):
                if _owner(asked):
                    # Not before somebody asks.
                    from modelyard._kit.looking import answer

                    answer(asked, self.what)


def _owner(asked: socket.socket) -> bool:
    """Whether who asks is who we are, or root; the mode of the file says so already."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = _WHO.unpack(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _WHO.size))
    return uid in (0, os.geteuid())
