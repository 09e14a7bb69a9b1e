"""The runner's process as the daemon sees it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from modelyard.automation.notes import Say, note
from modelyard.automation.process import Forked, Process, finish, how, spawn
from modelyard.automation.runner import Copied, Job, Said, command
from modelyard.automation.state import ChildState
from modelyard.records import Fire

__all__ = ["RunnerLink"]


class RunnerLink:
    """The runner's process as the daemon sees it: started when it is needed, and again after it died.

    Args:
        file: The declaration.
        say: Takes what it says.
        project: Name of the project.
        copied: The first one, where it was started before there was a loop.
    """

    def __init__(self, file: Path, say: Say, project: str, copied: Copied | None = None) -> None:
        self.file = file
        self._say = say
        self._project = project
        self._process: Process | None = None
        self._copied = copied
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._talk: asyncio.Task[None] | None = None
        self.jobs = 0
        self.state = ChildState(name="runner", state="stopped")

    async def start(self) -> None:
        """Start it if it does not run; what is asked of it meanwhile waits in its socket."""
        if self._process is not None:
            return
        if self._copied is not None:
            copied, self._copied = self._copied, None
            ours, self._process = copied.link, Process(Forked(copied.pid), copied.said)
        else:
            ours, theirs = socket.socketpair()
            with theirs:
                line = command(theirs.fileno(), os.getpid(), self.file)
                self._process = spawn(line, cwd=self.file.parent, pass_fds=[theirs.fileno()], tethered=True)
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._talk = asyncio.create_task(self._listen(self._process))
        self.jobs = 0
        self._set(state="running", pid=self._process.pid)

    async def run(self, fire: Fire, began: Callable[[str], None]) -> Said:
        """Have a fire run.

        Args:
            fire: Which.
            began: Called with the run's id once it is in the ledger.

        Raises:
            EOFError: The runner died.
        """
        self.jobs += 1
        await self._send(Job(fire=fire.id))
        while True:
            said = await self._hear()
            match said.what:
                case "ready":
                    continue
                case "began":
                    began(said.run)
                case "again":
                    self.jobs = 1
                    await self._send(Job(fire=fire.id))
                case _:
                    return said

    def interrupt(self, number: signal.Signals) -> None:
        """Send it a signal: SIGINT cancels its run, SIGTERM cuts it off and ends the runner."""
        if self._process is not None:
            self._process.signal(number)

    async def end(self, seconds: float) -> int:
        """End it, and say how it ended; with a SIGKILL if it is still there after so many seconds."""
        process = self._process
        if process is None:
            return 0
        self.interrupt(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                code = await process.wait()
        except TimeoutError:
            self.interrupt(signal.SIGKILL)
            code = await process.wait()
        await self._gone()
        return code

    async def died(self) -> int:
        """Clear away after it died, and return its exit code."""
        assert self._process is not None  # noqa: S101 - it was talked to
        # One that closed its socket and stays would never be missed.
        self._process.signal(signal.SIGKILL)
        code = await self._process.wait()
        await self._gone()
        self._set(restarts=self.state.restarts + 1, ended=how(code))
        return code

    async def _gone(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._talk is not None:
            await finish(self._talk)
        self._process = self._reader = self._writer = self._talk = None
        self._set(state="stopped", pid=0)

    async def _send(self, job: Job) -> None:
        assert self._writer is not None  # noqa: S101 - it was started
        try:
            self._writer.write(msgspec.json.encode(job) + b"\n")
            await self._writer.drain()
        except ConnectionError as error:
            raise EOFError from error

    async def _hear(self) -> Said:
        assert self._reader is not None  # noqa: S101 - it was started
        try:
            line = await self._reader.readline()
        except ConnectionError as error:
            raise EOFError from error
        if not line.endswith(b"\n"):
            raise EOFError
        return msgspec.json.decode(line, type=Said)

    async def _listen(self, process: Process) -> None:
        async for line in process.lines():
            self._say(note("said", line, name="runner", project=self._project))

    def _set(self, **values: Any) -> None:
        since = time.time() if values.get("state", self.state.state) != self.state.state else self.state.since
        self.state = msgspec.structs.replace(self.state, since=since, **values)
