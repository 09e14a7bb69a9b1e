"""`modelyard up`: triggers, runs, the endpoint, the pages and the alerts of one or several projects in one tree.

The main process is light and keeps nothing: what is wanted and what was done is in the ledger, so that it may be killed
at any moment, and may run on several machines at once.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard._kit.clock import Clock, as_text, system_clock
from modelyard._kit.errors import Busy, UserError
from modelyard._kit.ids import new_id
from modelyard.automation import runner
from modelyard.automation.base import Trigger
from modelyard.automation.fresh import mark
from modelyard.automation.notes import Say
from modelyard.automation.state import HELD, local_lock
from modelyard.automation.systemd import UNIT, Manager
from modelyard.spec import Spec, load
from modelyard.store import Store, open_store
from modelyard.store.disk import explained
from modelyard.store.locks import Locks

__all__ = ["Collect", "Daemon", "Settings", "collect"]

# Makes the triggers of a declaration.
Collect = Callable[[Spec, Store, Clock], Sequence[Trigger]]


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

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, and return the exit code.

        Raises:
            SpecError: A declaration has mistakes.
            UserError: Two declarations are in one folder (`up-same-folder`).
            Busy: A daemon runs on this machine for one of the projects (`daemon-running`).
        """
        marks = [mark(file) for file in self._settings.files]
        specs = [load(file, files=False) for file in self._settings.files]
        _apart([spec.root for spec in specs])
        with ExitStack() as held:
            for spec in specs:
                held.enter_context(_alone(spec.root, self._id))
            # First of all the runners, whose start takes longest; as copies, while there is no loop nor another thread.
            copies = [runner.copy(spec, seen) for spec, seen in zip(specs, marks, strict=True)]
            stores = []
            for spec in specs:
                stores.append(open_store(spec.root, file=spec.path.name))
                held.callback(stores[-1].close)
            # What only this process needs is imported while they begin.
            import asyncio

            from modelyard.automation.tree import Tree

            tree = Tree(
                self._settings,
                self._say,
                self._id,
                clock=self._clock,
                pace=self._pace,
                collect=self._collect,
                manager=self._manager,
            )
            return asyncio.run(tree.live(specs, stores, copies))


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
