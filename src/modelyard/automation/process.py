"""Child processes of the daemon: they say what they say into a pipe, and die with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from modelyard.automation import tether as _tether
from modelyard.automation.apart import apart
from modelyard.security.redact import redact

__all__ = ["Forked", "Process", "finish", "how", "spawn"]

_LINE_BYTES = 1 << 16
# Seconds after the end of a process until nothing more is read of what it said.
_LAST_WORDS = 1.0


class _Started(Protocol):
    """What is needed of a process that was started: `subprocess.Popen` has it."""

    pid: int

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it was waited for already."""
        ...


class Forked:
    """A child that was forked, with the face of a `subprocess.Popen`.

    Args:
        pid: Its process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = False

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        _, status = os.waitpid(self.pid, 0)
        self._ended = True
        return os.waitstatus_to_exitcode(status)

    def send_signal(self, sig: int) -> None:
        """Send it a signal; nobody, if it has ended: its number may be another's by now."""
        if not self._ended:
            os.kill(self.pid, sig)


class Process:
    """A child, in the loop that runs now. asyncio's own loses exit codes where a signal meets an end.

    Args:
        started: It.
        said: The pipe that it writes to.
    """

    def __init__(self, started: _Started, said: IO[bytes]) -> None:
        self.pid = started.pid
        self._started = started
        self._said = said
        self._stream = asyncio.StreamReader(limit=_LINE_BYTES)
        self._ended = asyncio.create_task(apart(started.wait))

    async def lines(self) -> AsyncIterator[str]:
        """Yield what it says, line by line, until nobody has its pipe any more; too long a line is left out."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._stream), self._said)
        try:
            while True:
                try:
                    raw = await self._stream.readline()
                except ValueError:
                    continue  # asyncio has dropped what is too long for one line
                if not raw:
                    return
                # It is kept and shown: no secret in it.
                yield redact(raw.decode(errors="replace").rstrip())
        finally:
            transport.close()

    async def wait(self) -> int:
        """Wait for its end and return its exit code; minus the signal that killed it."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self._started.send_signal(number)


async def finish(reading: asyncio.Task[None]) -> None:
    """Let the reading of a pipe end whose process has ended; somebody else may have the pipe for ever."""
    await asyncio.wait({reading}, timeout=_LAST_WORDS)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


def how(code: int) -> str:
    """Return how a process ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


def spawn(command: Sequence[str], *, cwd: Path, pass_fds: Sequence[int] = (), tethered: bool = False) -> Process:
    """Start a process that dies with this one, out of reach of the terminal's Ctrl-C.

    To be called from the main thread: the system ends the child when the very thread ends that started it.

    Args:
        command: What to run.
        cwd: Folder it runs in.
        pass_fds: Files that it inherits.
        tethered: It sees to it by itself that it dies with us.
    """
    line = [] if tethered else [sys.executable, "-I", "-S", str(Path(_tether.__file__)), str(os.getpid())]
    started = subprocess.Popen(
        [*line, *command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        start_new_session=True,
        pass_fds=pass_fds,
    )
    assert started.stdout is not None  # noqa: S101 - asked for above
    return Process(started, started.stdout)
