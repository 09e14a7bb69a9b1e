"""The runner's process as the daemon sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from modelyard.automation.notes import Say, note
from modelyard.automation.runner import Job, Said
from modelyard.automation.supervise import ChildState, how, lines, spawn
from modelyard.records import Fire

__all__ = ["RunnerLink"]


class RunnerLink:
    """The runner's process as the daemon sees it: started when it is needed, and again after it died.

    Args:
        file: The declaration.
        say: Takes what it says.
        project: Name of the project.
    """

    def __init__(self, file: Path, say: Say, project: str) -> None:
        self.file = file
        self._say = say
        self._project = project
        self._process: Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._talk: asyncio.Task[None] | None = None
        self.jobs = 0
        self.state = ChildState(name="runner", state="stopped")

    async def start(self) -> None:
        """Start it if it does not run; what is asked of it meanwhile waits in its socket."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        # -P: a file called like a library in the folder of the project is not imported.
        command = [sys.executable, "-P", "-m", "modelyard.automation.runner"]
        with theirs:
            command += [str(theirs.fileno()), str(os.getpid()), str(self.file)]
            self._process = await spawn(command, cwd=self.file.parent, pass_fds=[theirs.fileno()])
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
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self, seconds: float) -> int:
        """End it, and say how it ended; with a SIGKILL if it is still there after so many seconds."""
        process = self._process
        if process is None:
            return 0
        self.interrupt(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self.interrupt(signal.SIGKILL)
            code = await process.wait()
        await self._gone()
        return code

    async def died(self) -> int:
        """Clear away after it died, and return its exit code."""
        assert self._process is not None  # noqa: S101 - it was talked to
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        code = await self._process.wait()
        await self._gone()
        self._set(restarts=self.state.restarts + 1, ended=how(code))
        return code

    async def _gone(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._talk is not None:
            await self._talk
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
        assert process.stdout is not None  # noqa: S101 - spawn asks for it
        async for line in lines(process.stdout):
            self._say(note("said", line, name="runner", project=self._project))

    def _set(self, **values: Any) -> None:
        since = time.time() if values.get("state", self.state.state) != self.state.state else self.state.since
        self.state = msgspec.structs.replace(self.state, since=since, **values)
