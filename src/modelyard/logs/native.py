"""What a process writes past Python, and what the programs write that it starts: read by whoever started it.

The process itself could not read it: native code that prints much while it holds the interpreter would wait for a
reader that waits for the interpreter, and what it says last, when it crashes, nobody would read at all.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
from collections import deque

from modelyard.logs.capture import LONG, TAIL, WIDE
from modelyard.logs.files import LogFiles
from modelyard.logs.line import About, Line
from modelyard.security.redact import redact

__all__ = ["Native"]

_CHUNK = 1 << 16
# Lines of one task that go into the files.
_MOST = 100_000


class Native:
    """The reading end of a pipe, with a thread that never lets it fill up.

    Args:
        files: Where the lines are written.

    Attributes:
        write: The writing end, for the process that is about to be started; `started` closes it here.
    """

    def __init__(self, files: LogFiles) -> None:
        self._files = files
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        # Not the one of the moment when something comes: that may belong to a step in this process.
        self._shown = sys.stderr
        self._about = About()
        self._pending = ""
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._count = 0
        self._open = True
        self._lock = threading.Lock()
        threading.Thread(target=self._keep, name="native-output", daemon=True).start()

    def started(self) -> None:
        """Close the writing end here: its other holders are the processes that write."""
        os.close(self.write)

    def begin(self, about: About) -> None:
        """Say what the lines belong to from now on."""
        with self._lock:
            self._drain()
            self._end()
            self._about = about
            self._tail.clear()
            self._count = 0

    def settle(self) -> tuple[str, ...]:
        """Take in everything that was written until now, and return the last lines."""
        with self._lock:
            self._drain()
            self._end()
            return tuple(self._tail)

    def _keep(self) -> None:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        while True:
            poll.poll()
            with self._lock:
                if not self._drain():
                    self._end()
                    self._open = False
                    os.close(self._read)
                    return

    def _drain(self) -> bool:
        """Read what is there; say whether more may come."""
        while self._open:
            try:
                data = os.read(self._read, _CHUNK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._pending += data.decode("utf-8", "replace")
            end = self._pending.rfind("\n") + 1
            if end or len(self._pending) > LONG:
                end = end or len(self._pending)
                whole, self._pending = self._pending[:end], self._pending[end:]
                self._take(whole)
        return False

    def _end(self) -> None:
        whole, self._pending = self._pending, ""
        if whole:
            self._take(whole)

    def _take(self, whole: str) -> None:
        clean = redact(whole)
        with contextlib.suppress(ValueError, OSError):  # whoever showed it has gone
            self._shown.write(clean)
            self._shown.flush()
        for text in clean.split("\n"):
            line = text.rstrip("\r").rpartition("\r")[2]
            if not line.strip():
                continue
            self._tail.append(line[:WIDE])
            self._count += 1
            if self._about.run and self._count <= _MOST:
                self._files.append(Line.of(self._about, self._files.clock(), "native", line))
