"""Keep a child process running: start it, read what it says, start it again when it dies, end it politely."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ModelyardError
from modelyard._kit.text import seconds_text
from modelyard.automation import tether as _tether
from modelyard.automation.notes import Say, note

__all__ = ["Child", "ChildState", "how", "lines", "pause", "spawn"]

_FIRST, _MOST = 0.1, 60.0
# A child that lived so long did not die of how it was started.
_CALM = 60.0
# Lines of a child that are kept to be shown.
_LINES = 20
_LINE_BYTES = 1 << 16


class ChildState(msgspec.Struct, frozen=True, kw_only=True):
    """How a child stands.

    Attributes:
        name: `runner`, `serve`, `ui` or `alerts`.
        state: `running`; `waiting` to be started again; `stopped`.
        pid: Its process; 0 while there is none.
        since: When it came into this state, seconds since 1970 UTC.
        restarts: How often it was started again after it had died.
        failures: How often it has died in a row, each time soon after its start.
        next: When it is started again, seconds since 1970 UTC.
        ended: How it ended the last time.
        said: Its last lines.
    """

    name: str
    state: str
    pid: int = 0
    since: float = 0.0
    restarts: int = 0
    failures: int = 0
    next: float = 0.0
    ended: str = ""
    said: tuple[str, ...] = ()


def pause(failures: int) -> float:
    """Return the seconds to wait before a child that died so often in a row is started again.

    >>> [pause(n) for n in (1, 2, 5, 50)]
    [0.1, 0.2, 1.6, 60.0]
    """
    return float(min(_MOST, _FIRST * 2.0 ** min(failures - 1, 30)))


def how(code: int) -> str:
    """Return how a process ended, in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


async def spawn(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> Process:
    """Start a process that dies with this one, out of reach of the terminal's Ctrl-C; what it says comes by a pipe.

    To be called from the main thread: the system ends the child when the very thread ends that started it.
    """
    line = [sys.executable, "-I", "-S", str(Path(_tether.__file__)), str(os.getpid()), *command]
    return await asyncio.create_subprocess_exec(
        *line,
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
        pass_fds=pass_fds,
        limit=_LINE_BYTES,
    )


class Child:
    """One process that is kept running.

    Args:
        name: Its name.
        command: Makes its command line anew for each start; none: nothing is to run now.
        cwd: Folder it runs in.
        say: Takes what it says and what happens to it.
        project: Name of the project it belongs to.
        clock: Source of the times that are shown.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        *,
        cwd: Path,
        say: Say,
        project: str = "",
        clock: Clock = time.time,
    ) -> None:
        self._command = command
        self._cwd = cwd
        self._say = say
        self._project = project
        self._clock = clock
        self._process: Process | None = None
        self._ending = asyncio.Event()
        self._renewing = False
        self._nudge = asyncio.Event()
        self._lines: deque[str] = deque(maxlen=_LINES)
        self.state = ChildState(name=name, state="stopped")

    async def keep(self) -> None:
        """Run it, again and again, until `stop`."""
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._once()
            if self._ending.is_set():
                break
            if self._renewing:
                self._renewing = False
                continue
            failures = 1 if time.monotonic() - began >= _CALM else self.state.failures + 1
            wait = pause(failures)
            self._set(state="waiting", pid=0, failures=failures, next=self._clock() + wait, ended=how(code))
            last = f"; it said: {self._lines[-1]}" if self._lines else ""
            self._tell(f"{self.state.name} {how(code)}, starts again in {seconds_text(wait)}{last}", code=code)
            self._nudge.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), wait)
            self._set(state="waiting", restarts=self.state.restarts + 1)
        self._set(state="stopped", pid=0, next=0.0)

    def renew(self) -> None:
        """End the process and start it at once with the command as it is now."""
        self._renewing = self._process is not None
        self._signal(signal.SIGTERM)
        self._nudge.set()

    async def stop(self, seconds: float) -> None:
        """End it: a SIGTERM, and a SIGKILL to one that is still there after so many seconds."""
        self._ending.set()
        self._nudge.set()
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await process.wait()

    async def _once(self) -> int:
        try:
            command = self._command()
        except ModelyardError as error:
            self._lines.append(error.problem.message)
            return error.exit_code
        process = self._process = await spawn(command, cwd=self._cwd)
        self._set(state="running", pid=process.pid, next=0.0)
        self._tell(f"{self.state.name} runs as process {process.pid}", pid=process.pid)
        assert process.stdout is not None  # noqa: S101 - spawn asks for it
        async for line in lines(process.stdout):
            self._lines.append(line)
            self._say(note("said", line, name=self.state.name, project=self._project, clock=self._clock))
        code = await process.wait()
        self._process = None
        return code

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _set(self, **values: Any) -> None:
        since = self._clock() if values.get("state", self.state.state) != self.state.state else self.state.since
        self.state = msgspec.structs.replace(self.state, since=since, said=tuple(self._lines), **values)

    def _tell(self, text: str, **more: Any) -> None:
        self._say(note("child", text, name=self.state.name, project=self._project, clock=self._clock, **more))


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield the lines of a stream; one that is too long is cut off."""
    while True:
        try:
            raw = await stream.readline()
        except ValueError:
            continue  # asyncio has dropped what is too long for one line
        if not raw:
            return
        yield raw.decode(errors="replace").rstrip()
