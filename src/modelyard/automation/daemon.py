"""`modelyard up`: triggers, runs, the endpoint, the pages and the alerts of one or several projects in one tree.

The main process is light and keeps nothing: what is wanted and what was done is in the ledger, so that it may be killed
at any moment, and may run on several machines at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard import __version__
from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.errors import Busy, ModelyardError, UserError
from modelyard._kit.ids import new_id
from modelyard.automation.base import Trigger
from modelyard.automation.link import RunnerLink
from modelyard.automation.notes import Say, note
from modelyard.automation.project import Project
from modelyard.automation.state import HELD, DaemonState, local_lock
from modelyard.automation.systemd import UNIT, Manager
from modelyard.spec import Spec, load
from modelyard.store import Store, open_store
from modelyard.store.disk import explained
from modelyard.store.locks import Locks

__all__ = ["Collect", "Daemon", "Settings", "collect"]

# Makes the triggers of a declaration.
Collect = Callable[[Spec, Store, Clock], Sequence[Trigger]]

# Seconds between two looks at whether the published state is right, and between two heartbeats.
_SHOW, _BEAT = 0.5, 5.0


def collect(spec: Spec, store: Store, clock: Clock) -> list[Trigger]:
    """Return the triggers of a declaration; none of them listens yet."""
    from modelyard.automation.schedule import schedule_triggers
    from modelyard.automation.triggers import triggers_of

    return [*schedule_triggers(spec, store, clock), *triggers_of(spec, store, clock)]


@dataclass(frozen=True, slots=True)
class Settings:
    """What one daemon is told.

    Attributes:
        files: The declarations, each in a folder of its own.
        host: Address of the endpoints.
        port: Port of the first project's endpoint; the next has the next.
        ui_port: Port of the first project's pages.
        serve: Serve the champion.
        ui: Serve the pages.
        hooks_host: Address where webhooks are received.
        hooks_port: Port of the first project's webhooks.
        runs: Runs at a time, over all projects; one project has one.
        grace: Seconds that the run under way may take to end when the daemon is stopped.
    """

    files: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    ui_port: int = 8500
    serve: bool = True
    ui: bool = True
    hooks_host: str = "127.0.0.1"
    hooks_port: int = 8400
    runs: int = 1
    grace: float = 30.0


class Daemon:
    """One daemon.

    Args:
        settings: What it is told.
        say: Takes what happens, for a person or a program.
        clock: Source of the time that triggers and waiting fires go by.
        pace: Seconds of that clock in one real second, for a simulated one.
        collect: Makes the triggers of a declaration.
        manager: The service manager.
    """

    def __init__(
        self,
        settings: Settings,
        say: Say,
        *,
        clock: Clock = system_clock,
        pace: float = 1.0,
        collect: Collect = collect,
        manager: Manager | None = None,
    ) -> None:
        self._settings = settings
        self._say = say
        self._clock = clock
        self._pace = pace
        self._collect = collect
        self._manager = manager or Manager.of_this_process()
        self._id = new_id("daemon")
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, and return the exit code.

        Raises:
            SpecError: A declaration has mistakes.
            UserError: Two declarations are in one folder (`up-same-folder`).
            Busy: A daemon runs on this machine for one of the projects (`daemon-running`).
        """
        specs = [load(file, files=False) for file in self._settings.files]
        _apart([spec.root for spec in specs])
        with ExitStack() as held:
            for spec in specs:
                held.enter_context(_alone(spec.root, self._id))
            # First of all the runners, whose start takes longest; as copies, while there is no loop nor another thread.
            links = [RunnerLink(spec.path, self._say, spec.project) for spec in specs]
            for link in links:
                link.fork()
            stores = []
            for spec in specs:
                stores.append(open_store(spec.root, file=spec.path.name))
                held.callback(stores[-1].close)
            return asyncio.run(self._main(specs, stores, links))

    async def _main(self, specs: Sequence[Spec], stores: Sequence[Store], links: Sequence[RunnerLink]) -> int:
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
                link,
                slots,
                self._say,
                start,
                settings=self._settings,
                number=number,
                clock=self._clock,
                pace=self._pace,
                collect=self._collect,
            )
            for number, (spec, store, link) in enumerate(zip(specs, stores, links, strict=True))
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
                await asyncio.wait_for(self._stopping.wait(), _SHOW)
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


def _apart(roots: Sequence[Path]) -> None:
    """Refuse two declarations that would share one ledger and one lock."""
    for root in roots:
        if roots.count(root) > 1:
            raise UserError(
                "up-same-folder",
                f"two of the files are in `{root}`, and the state of a project is beside its file",
                hint="give each project a folder of its own",
            )


@contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    """Be the only daemon of a project's folder on this machine while the context is open."""
    who: dict[str, Any] = {"daemon": name, "host": socket.gethostname(), "since": time.time()}
    if unit := os.environ.get(UNIT):
        who["unit"] = unit
    folder = local_lock(root)
    with explained(folder):
        folder.parent.mkdir(mode=0o700, exist_ok=True)
    locks = Locks(folder)
    with ExitStack() as held:
        try:
            held.enter_context(locks.hold(HELD, who=who))
        except Busy:
            who = locks.holder(HELD) or {}
            since = f" since {as_text(who['since'])}" if "since" in who else ""
            raise Busy(
                "daemon-running",
                f"`modelyard up` runs here already: process {who.get('pid', 'unknown')}{since}",
                hint="`modelyard status` shows it, `modelyard down` stops it",
            ) from None
        yield
