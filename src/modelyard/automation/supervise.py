"""Keep a child process running: start it, read what it says, start it again when it dies, end it politely."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ModelyardError, UserError
from modelyard._kit.text import seconds_text
from modelyard.automation.apart import pause
from modelyard.automation.notes import Say, note
from modelyard.automation.process import Process, finish, how, spawn
from modelyard.automation.state import ChildState

__all__ = ["Child"]

# A child that lived so long did not die of how it was started.
_CALM = 60.0
# Lines of a child that are kept to be shown.
_LINES = 20


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
            error = next((line for line in reversed(self._lines) if line.startswith("error[")), "")
            # 2: what it was given is wrong, and is so at the next start, too. A port may become free by itself.
            if code == UserError.exit_code and error and not error.startswith("error[port-taken]"):
                await self._until_renewed(f"{how(code)}, {error}", code)
                continue
            failures = 1 if time.monotonic() - began >= _CALM else self.state.failures + 1
            wait = pause(failures)
            self._set(state="waiting", pid=0, failures=failures, next=self._clock() + wait, ended=how(code))
            last = f"; it said: {self._lines[-1]}" if self._lines else ""
            self._tell(f"{self.state.name} {how(code)}, starts again in {seconds_text(wait)}{last}", code=code)
            self._nudge.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._nudge.wait()
            if not self._ending.is_set():
                self._set(restarts=self.state.restarts + 1)
        self._set(state="stopped", pid=0, next=0.0)

    async def _until_renewed(self, ended: str, code: int) -> None:
        """Wait until somebody renews it; its error was said by itself."""
        self._set(state="waiting", pid=0, failures=self.state.failures + 1, next=0.0, ended=ended)
        self._tell(f"{self.state.name} {how(code)}, starts again when what it is given changes", code=code)
        self._nudge.clear()
        await self._nudge.wait()

    @property
    def said(self) -> tuple[str, ...]:
        """Return its last lines."""
        return tuple(self._lines)

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
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await process.wait()

    async def _once(self) -> int:
        try:
            command = self._command()
        except ModelyardError as error:
            self._lines.append(error.problem.message)
            return error.exit_code
        process = self._process = spawn(command, cwd=self._cwd)
        self._set(state="running", pid=process.pid, next=0.0)
        self._tell(f"{self.state.name} runs as process {process.pid}", pid=process.pid)
        reading = asyncio.create_task(self._read(process))
        code = await process.wait()
        await finish(reading)
        self._process = None
        return code

    async def _read(self, process: Process) -> None:
        async for line in process.lines():
            self._lines.append(line)
            self._say(note("said", line, name=self.state.name, project=self._project, clock=self._clock))

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.signal(number)

    def _set(self, **values: Any) -> None:
        since = self._clock() if values.get("state", self.state.state) != self.state.state else self.state.since
        self.state = msgspec.structs.replace(self.state, since=since, said=self.said, **values)

    def _tell(self, text: str, **more: Any) -> None:
        self._say(note("child", text, name=self.state.name, project=self._project, clock=self._clock, **more))
