"""Hand the fires of one project to its runner, one after another, until each has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ModelyardError, StepFailed
from modelyard.automation.fresh import Mark, mark
from modelyard.automation.notes import Say, note
from modelyard.automation.queue import Queue, choose
from modelyard.automation.runner import Job, Said
from modelyard.automation.supervise import ChildState, how, lines, pause, spawn
from modelyard.pipeline.cancel import ask
from modelyard.pipeline.dead import fail_fire, settle_dead
from modelyard.records import Fire
from modelyard.store import Store

__all__ = ["Dispatcher", "RunnerLink"]

# A fire whose process died so often in a row is given up: it would take the runner down for ever.
_DEATHS = 3
# Seconds that a fire is refused before it fails: somebody may be writing the declaration.
_MENDING = 10.0
# Seconds between two looks at whether somebody else's run has ended.
_HELD = 0.5
# A runner that has done nothing for so long gives its memory back (seconds).
_IDLE = 600.0


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


class Dispatcher:
    """Runs the queue of one project.

    Args:
        project: Name of the project.
        store: Its store.
        link: Its runner.
        slots: As many runs at a time as it has places, over all projects; whoever waits longest is next.
        say: Takes what happens.
        clock: Source of the time by which fires may start.
        pace: Seconds of that clock in one real second.
    """

    def __init__(
        self,
        project: str,
        store: Store,
        link: RunnerLink,
        slots: asyncio.Semaphore,
        say: Say,
        *,
        clock: Clock,
        pace: float = 1.0,
    ) -> None:
        self._project = project
        self._store = store
        self._link = link
        self._slots = slots
        self._say = say
        self._clock = clock
        self._pace = pace
        self._wake = asyncio.Event()
        self._served: dict[str, int] = {}
        self._turn = self._failures = 0
        self._deaths: Counter[str] = Counter()
        # Fire -> since when it is refused; and the declaration that no fire can run with, and why.
        self._refused_since: dict[str, float] = {}
        self._blocked: tuple[Mark, dict[str, str]] | None = None
        self._stopping = False
        self.queue = Queue(store)
        # Fire and run that are under way here.
        self.fire = ""
        self.run = ""

    def wake(self) -> None:
        """Look at the queue now; to be called in the loop's thread."""
        self._wake.set()

    def stop(self) -> None:
        """Begin no further run."""
        self._stopping = True
        self._wake.set()

    async def work(self) -> None:
        """Run fires until `stop`, and end when the run under way has ended."""
        await self._link.start()
        while not self._stopping:
            self._wake.clear()
            try:
                await self._turn_of_one()
            except Exception as error:  # noqa: BLE001 - a full disk or a lost database passes; the daemon stays
                self._failures += 1
                self._tell("file", f"the store cannot be used: {error}", name="store")
                await self._sleep(pause(self._failures))
            else:
                self._failures = 0

    async def _turn_of_one(self) -> None:
        self.queue.refresh()
        self._settle()
        fire = None if self.problem else choose(self.queue.ready(self._clock()), self._served)
        if fire is None:
            await self._sleep(self._until_next())
        elif self._store.holder("run") is not None:
            # Another daemon or a person at a keyboard has the project.
            await self._sleep(_HELD)
        else:
            async with self._slots:
                if not self._stopping:
                    await self._one(fire)

    def _settle(self) -> None:
        """Put the fires back whose run died with its process, wherever that was."""
        if self.queue.running and self._store.holder("run") is None:
            for run in settle_dead(self._store):
                self._tell("run", f"{run} was cut off; it goes on from its finished steps", name=run)
            self.queue.refresh()

    def _until_next(self) -> float:
        """Return the real seconds until a fire may start; other processes' fires are heard of by `wake`."""
        if self.queue.running or self._blocked is not None:
            return _HELD
        return min(max(0.0, self.queue.opens(self._clock()) - self._clock()) / self._pace, _IDLE)

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            if seconds >= _IDLE and self._link.jobs:
                await self._link.end(5.0)
                await self._link.start()

    async def _one(self, fire: Fire) -> None:
        await self._link.start()
        self.fire, self._turn = fire.id, self._turn + 1
        self._served[fire.trigger] = self._turn
        began = time.monotonic()
        try:
            said = await self._link.run(fire, self._began)
        except EOFError:
            await self._died(fire)
        else:
            await self._ended(fire, said, time.monotonic() - began)
        finally:
            self.fire = self.run = ""
            self.queue.refresh()
            self.queue.put_back(fire.id)

    def _began(self, run: str) -> None:
        self.run = run

    async def _ended(self, fire: Fire, said: Said, seconds: float) -> None:
        match said.what:
            case "ended":
                self._deaths.pop(fire.id, None)
                self._refused_since.pop(fire.id, None)
                found = self._store.ledger.fire(fire.id)
                state, why = (found.state, found.why) if found else ("", "")
                more = f": {why}" if why else ""
                self._tell(
                    "run",
                    f"{said.run} for {fire.trigger}: {state}{more} ({seconds:.2f} s)",
                    name=said.run,
                    fire=fire.id,
                    state=state,
                    seconds=seconds,
                )
            case "busy":
                await self._sleep(_HELD)
            case "refused" if said.error:
                await self._refused(fire, said)

    async def _refused(self, fire: Fire, said: Said) -> None:
        """Give somebody time to mend what is wrong; then the fire fails of it, in a run that is recorded and told of.

        Where the declaration itself is wrong, the fires behind it wait until it changes.
        """
        error = said.error
        since = self._refused_since.get(fire.id)
        if since is None:
            since = self._refused_since[fire.id] = time.monotonic()
            self._tell("run", f"{fire.trigger} cannot run: {error['message']}", name=fire.id, **error)
        if time.monotonic() - since < _MENDING:
            await self._sleep(_HELD)
            return
        if said.file:
            self._blocked = (mark(self._link.file), error)
        self._give_up(fire, ModelyardError(error["code"], error["message"], where=error["where"], hint=error["hint"]))

    @property
    def problem(self) -> str:
        """Why no fire can run, or nothing."""
        if self._blocked is not None and self._blocked[0] != mark(self._link.file):
            self._blocked = None
        return "" if self._blocked is None else self._blocked[1]["message"]

    async def _died(self, fire: Fire) -> None:
        code = await self._link.died()
        self._deaths[fire.id] += 1
        self._tell("child", f"runner {how(code)} while it ran {fire.trigger}", name="runner", code=code)
        settle_dead(self._store)
        if self._deaths[fire.id] >= _DEATHS:
            message = f"its process died {_DEATHS} times in a row, the last time it {how(code)}"
            self._give_up(fire, StepFailed("fire-given-up", message, hint="see the log of the daemon"))
        elif not self._stopping:
            await self._sleep(pause(self._deaths[fire.id]))

    def _give_up(self, fire: Fire, error: ModelyardError) -> None:
        self._deaths.pop(fire.id, None)
        self._refused_since.pop(fire.id, None)
        if fail_fire(fire, self._project, error, self._store, actor=fire.actor):
            self._tell("run", f"{fire.trigger} failed: {error.problem.message}", name=fire.id, code=error.code)

    def watch_for_cancel(self) -> None:
        """End the run under way if somebody asks for it, from this machine or another."""
        run = self.run
        if run and self._store.holder(ask(run)) is not None and run == self.run:
            self._link.interrupt(signal.SIGINT)

    def _tell(self, what: str, text: str, *, name: str, **more: Any) -> None:
        self._say(note(what, text, name=name, project=self._project, **more))
