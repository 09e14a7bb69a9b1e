"""The tree of processes under one daemon: what lives, what is shown of it, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from modelyard import __version__
from modelyard._kit.clock import Clock
from modelyard._kit.errors import ModelyardError
from modelyard.automation.base import Trigger
from modelyard.automation.link import RunnerLink
from modelyard.automation.notes import Say, note
from modelyard.automation.project import Project
from modelyard.automation.runner import Copied
from modelyard.automation.state import DaemonState
from modelyard.automation.systemd import Manager
from modelyard.spec import Spec
from modelyard.store import Store

if TYPE_CHECKING:
    from modelyard.automation.daemon import Settings

__all__ = ["Tree"]

# Seconds between two looks at whether the published state is right, and between two heartbeats.
_SHOW, _BEAT = 0.5, 5.0


class Tree:
    """All projects of one daemon.

    Args:
        settings: What the daemon is told.
        say: Takes what happens.
        name: Id of the daemon.
        clock: Source of the time that triggers and waiting fires go by.
        pace: Seconds of that clock in one real second.
        collect: Makes the triggers of a declaration.
        manager: The service manager.
    """

    def __init__(
        self,
        settings: Settings,
        say: Say,
        name: str,
        *,
        clock: Clock,
        pace: float,
        collect: Callable[[Spec, Store, Clock], Sequence[Trigger]],
        manager: Manager,
    ) -> None:
        self._settings = settings
        self._say = say
        self._id = name
        self._clock = clock
        self._pace = pace
        self._collect = collect
        self._manager = manager
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()

    async def live(self, specs: Sequence[Spec], stores: Sequence[Store], copies: Sequence[Copied]) -> int:
        """Start everything, wait until it is to stop, stop everything, and return the exit code.

        Args:
            specs: The declarations.
            stores: The store of each.
            copies: The runner of each, started already.

        Raises:
            Busy: A store cannot be reached.
            ServeError: Webhooks cannot be received at the address that was given.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGQUIT, self._stop_at_once)
        slots = asyncio.Semaphore(self._settings.runs)
        start = DaemonState(
            id=self._id, host=socket.gethostname(), pid=os.getpid(), since=time.time(), version=__version__
        )
        projects = [
            Project(
                spec,
                store,
                RunnerLink(spec.path, self._say, spec.project, copied),
                slots,
                self._say,
                start,
                settings=self._settings,
                number=number,
                clock=self._clock,
                pace=self._pace,
                collect=self._collect,
            )
            for number, (spec, store, copied) in enumerate(zip(specs, stores, copies, strict=True))
        ]
        beating = asyncio.create_task(self._beat(projects))
        begun: list[Project] = []
        try:
            for project in projects:
                await project.start()
                begun.append(project)
        except ModelyardError:
            beating.cancel()
            await asyncio.gather(*(project.stop(0.0, self._at_once) for project in begun))
            raise
        names = ", ".join(project.name for project in projects)
        self._say(note("ready", f"{names}: up as process {os.getpid()}", pid=os.getpid(), id=self._id))
        self._manager.tell("READY=1", f"STATUS={names}")
        code = await self._last(projects, beating)
        self._manager.tell("STOPPING=1", "STATUS=waiting for the run under way")
        under_way = ", ".join(p.run for p in projects if p.run)
        wait = f"; {under_way} may take {self._settings.grace:.0f} s to end" if under_way else ""
        self._say(note("stop", f"no new run begins{wait}"))
        await asyncio.gather(*(project.stop(self._settings.grace, self._at_once) for project in projects))
        beating.cancel()
        self._say(note("stop", "stopped"))
        return code

    async def _last(self, projects: Sequence[Project], beating: asyncio.Task[None]) -> int:
        """Wait until it is to stop, and return the exit code: 0, or 1 where something ended that is to last."""
        while not self._stopping.is_set():
            try:
                if beating.done():
                    beating.result()
                for project in projects:
                    project.check()
            except Exception as error:  # noqa: BLE001 - whoever watches over us starts a whole daemon again
                text = f"a part of the daemon died, so all of it ends: {type(error).__name__}: {error}"
                self._say(note("stop", text))
                self._stop_at_once()
                return 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHOW):
                    await self._stopping.wait()
        return 0

    async def _beat(self, projects: Sequence[Project]) -> None:
        """Show how everything stands, and that the loop turns."""
        beaten = told = 0.0
        while True:
            now = time.monotonic()
            for project in projects:
                project.show(beat_now=now - beaten >= _BEAT)
            if now - beaten >= _BEAT:
                beaten = now
            if self._manager.every and now - told >= self._manager.every:
                self._manager.tell("WATCHDOG=1")
                told = now
            await asyncio.sleep(min(_SHOW, self._manager.every or _SHOW))

    def _stop(self) -> None:
        """Stop politely; asked again, at once."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    def _stop_at_once(self) -> None:
        self._at_once.set()
        self._stopping.set()
