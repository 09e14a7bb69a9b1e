"""One project under the daemon: its triggers, its queue, and the processes that are kept for it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ModelyardError
from modelyard.automation.apart import apart
from modelyard.automation.base import Trigger
from modelyard.automation.dispatch import Dispatcher
from modelyard.automation.fresh import mark
from modelyard.automation.gate import Gate
from modelyard.automation.link import RunnerLink
from modelyard.automation.looking import Looker
from modelyard.automation.notes import Say, note
from modelyard.automation.presence import Presence
from modelyard.automation.receiver import Receiver
from modelyard.automation.state import DaemonState, announce, beat, forget, publish
from modelyard.automation.supervise import Child
from modelyard.records import Draft
from modelyard.spec import Spec, load
from modelyard.store import Store

if TYPE_CHECKING:
    from modelyard.automation.daemon import Settings

__all__ = ["Project"]

# Seconds that children have to end by themselves.
_CHILD_GRACE = 12.0
# Seconds between two looks at what others wrote, and after a look that failed.
_TICK, _ASK_AGAIN = 0.5, 2.0
# Seconds that a store has to take our last word.
_LEAVING = 5.0


class Project:
    """Everything that the daemon does for one declaration.

    Args:
        spec: The declaration.
        store: Its store.
        link: Its runner.
        slots: Places for runs, over all projects.
        say: Takes what happens.
        start: What the daemon says of itself.
        settings: What the daemon was told.
        number: 0 for the first project; ports are counted up by it.
        clock: Source of the time that triggers and waiting fires go by.
        pace: Seconds of that clock in one real second.
        collect: Makes the triggers.
    """

    def __init__(
        self,
        spec: Spec,
        store: Store,
        link: RunnerLink,
        slots: asyncio.Semaphore,
        say: Say,
        start: DaemonState,
        *,
        settings: Settings,
        number: int,
        clock: Clock,
        pace: float,
        collect: Callable[[Spec, Store, Clock], Sequence[Trigger]],
    ) -> None:
        self._spec = spec
        self._mark = mark(spec.path)
        self._store = store
        self._say = say
        self._start = start
        self._settings = settings
        self._number = number
        self._clock = clock
        self._pace = pace
        self._collect = collect
        self._problem = ""
        self._ready = False
        self._unwritten = False
        self._published: DaemonState | None = None
        self._desk = ThreadPoolExecutor(1)
        self._presence = Presence(store, start.id)
        self._link = link
        self._dispatcher = Dispatcher(spec.project, store, self._desk, link, slots, say, clock=clock, pace=pace)
        self._tasks: list[asyncio.Task[None]] = []
        self._lookers: list[tuple[Looker, asyncio.Task[None]]] = []
        self._children: dict[str, tuple[Child, asyncio.Task[None]]] = {}
        self._hooks = Receiver(settings.hooks_host, settings.hooks_port + number, spec.project, say)
        self._heard = -1
        self._served = ""

    @property
    def name(self) -> str:
        """Name of the project."""
        return self._spec.project

    @property
    def run(self) -> str:
        """Id of the run under way here."""
        return self._dispatcher.run

    async def start(self) -> None:
        """Start everything.

        Raises:
            Busy: The store cannot be reached.
            ServeError: Webhooks cannot be received at the address that was given.
        """
        await self._link.start()
        try:
            triggers = self._collect(self._spec, self._store, self._clock)
            self._hooks.bind(triggers)
            self._presence.take()
            announce(self._store, self._start)
            self._begin_alerts()
        except BaseException:
            await self._hooks.serve(())
            await self._link.end(0.0)
            raise
        self._tasks.append(asyncio.create_task(self._dispatcher.work()))
        self._look_after(triggers)
        # What was cut off goes on before anything else costs time.
        await self._dispatcher.looked.wait()
        await self._hooks.serve(triggers)
        if self._settings.ui:
            self._keep("ui", self._pages)
        if self._spec.alerts:
            self._keep("alerts", self._sender)
        await self._keep_while(self._spec.logs.to, "logs", self._lines)
        self._tasks.append(asyncio.create_task(self._listen()))
        self._ready = True

    def show(self, *, beat_now: bool) -> None:
        """Publish how everything stands, if it changed; else, if it is time, that the daemon lives."""
        state = self._state()
        try:
            if state != self._published:
                publish(self._store.root, state)
                self._published = state
            elif beat_now:
                beat(self._store.root)
        except OSError as error:
            # A full disk passes: the next look tries again.
            if not self._unwritten:
                self._say(note("file", f"how it stands cannot be written: {error}", project=self.name))
            self._unwritten = True
        else:
            self._unwritten = False

    def check(self) -> None:
        """See that nothing that is to last has ended.

        Raises:
            Exception: What one of them died of, which is a mistake of ours.
        """
        for task in [*self._tasks, *(task for _, task in self._lookers)]:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def stop(self, grace: float, at_once: asyncio.Event) -> None:
        """Stop everything; the run under way may end, for so many seconds, or until it is to be at once."""
        working, listening = self._tasks
        self._dispatcher.stop()
        await self._hooks.serve(())
        await self._leave_triggers()
        ending = [asyncio.create_task(child.stop(_CHILD_GRACE)) for child, _ in self._children.values()]
        hurry = asyncio.create_task(at_once.wait())
        await asyncio.wait({working, hurry}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        # A run that is still under way is interrupted, not cancelled: the next `modelyard up` goes on with its fire.
        await self._link.end(_CHILD_GRACE)
        await asyncio.wait({working})
        listening.cancel()
        await asyncio.gather(listening, *ending, *(task for _, task in self._children.values()), return_exceptions=True)
        gone = asyncio.get_running_loop().run_in_executor(self._desk, self._leave)
        # A store that cannot be reached now hears of us when it is asked who lives.
        await asyncio.wait({gone}, timeout=_LEAVING)
        self._desk.shutdown(wait=False)

    def _leave(self) -> None:
        """Write that we ended, at the desk."""
        payload = {"id": self._start.id, "reason": "it was stopped"}
        self._store.ledger.append(Draft(kind="daemon.stopped", actor="daemon", payload=payload))
        self._presence.leave()
        forget(self._store.root, self._start.id)

    async def _listen(self) -> None:
        """Hear what other processes wrote: fires, champions, a changed declaration, the wish that a run ends."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                head, champion = await loop.run_in_executor(self._desk, self._hear)
                if head != self._heard:
                    self._heard = head
                    self._dispatcher.wake()
                if champion and champion != self._served:
                    self._serve(champion)
                await self._dispatcher.cancel_if_asked()
                if mark(self._spec.path) != self._mark:
                    await self._read_again()
                wait = _TICK
            except (ModelyardError, OSError):
                # The dispatcher meets the same and says so.
                wait = _ASK_AGAIN
            await asyncio.sleep(wait)

    def _hear(self) -> tuple[int, str]:
        """Return the newest event's number, and what tells this champion from every other; at the desk."""
        self._presence.keep()
        head = self._store.ledger.head()[0]
        if head == self._heard or not self._settings.serve:
            return head, self._served
        now = self._store.ledger.alias(self._spec.endpoint, "champion")
        return head, "" if now is None else f"{now.revision} {now.model.address}"

    def _look_after(self, triggers: Sequence[Trigger]) -> None:
        self._dispatcher.gates = {trigger.name: trigger for trigger in triggers if isinstance(trigger, Gate)}
        for trigger in triggers:
            looker = Looker(
                trigger,
                self._store,
                self._say,
                project=self.name,
                fired=self._dispatcher.wake,
                clock=self._clock,
                pace=self._pace,
            )
            self._lookers.append((looker, asyncio.create_task(looker.keep())))

    async def _leave_triggers(self) -> None:
        tasks = [task for _, task in self._lookers]
        self._lookers.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_again(self) -> None:
        """Take over a changed declaration; one that is wrong changes nothing but what the status says."""
        before, self._mark = self._mark, mark(self._spec.path)
        try:
            spec = await apart(lambda: load(self._spec.path, files=False))
            triggers = self._collect(spec, self._store, self._clock)
            await self._leave_triggers()
            # Only what its own section says has it begin anew.
            serves_on = (spec.deploy, spec.endpoint) == (self._spec.deploy, self._spec.endpoint)
            self._spec = spec
            self._look_after(triggers)
            await self._hooks.serve(triggers)
        except ModelyardError as error:
            self._problem = f"the changed declaration is not taken over: {error.problem.message}"
            self._say(note("file", self._problem, project=self.name, code=error.code))
            return
        self._problem = ""
        try:
            await apart(self._begin_alerts)
        except BaseException:
            # A full disk passes: the file is read again then.
            self._mark = before
            raise
        for name in ("serve", "alerts"):
            child = self._children[name][0] if name in self._children else None
            if child is not None and not (name == "serve" and serves_on and child.state.state == "running"):
                child.renew()
        if spec.alerts and "alerts" not in self._children:
            self._keep("alerts", self._sender)
        elif not spec.alerts and "alerts" in self._children:
            child, task = self._children.pop("alerts")
            await child.stop(_CHILD_GRACE)
            await task
        await self._keep_while(spec.logs.to, "logs", self._lines)
        self._say(note("file", "the declaration has changed and counts from now on", project=self.name))

    def _keep(self, name: str, command: Callable[[], Sequence[str]]) -> None:
        child = Child(name, command, cwd=self._spec.root, say=self._say, project=self.name)
        self._children[name] = (child, asyncio.create_task(child.keep()))

    def _serve(self, champion: str) -> None:
        """Serve the champion once there is one; a server that runs follows it by itself."""
        self._served = champion
        if "serve" not in self._children:
            self._keep("serve", self._endpoint)
        elif self._children["serve"][0].state.state != "running":
            # What kept it from its start may have gone with the champion before.
            self._children["serve"][0].renew()

    def _endpoint(self) -> list[str]:
        from modelyard.deploy.aliases import pointed
        from modelyard.deploy.local import command, telling

        declared = self._spec.deployed(self._spec.endpoint)
        told = telling(self._store, pointed(self._store, self._spec.endpoint), declared=declared)
        return command(told, host=self._settings.host, port=self._settings.port + self._number)

    def _pages(self) -> list[str]:
        port = str(self._settings.ui_port + self._number)
        line = [sys.executable, "-P", "-m", "modelyard.web", "--project", str(self._spec.root)]
        return [*line, "--port", port, "--no-open"]

    async def _keep_while(self, wanted: Sequence[str], name: str, command: Callable[[], Sequence[str]]) -> None:
        """Start a child that is wanted, renew it if it is there, stop it if it is not wanted any more."""
        there = self._children.get(name)
        if wanted and there is not None:
            there[0].renew()
        elif wanted:
            self._keep(name, command)
        elif there is not None:
            del self._children[name]
            await there[0].stop(_CHILD_GRACE)
            await there[1]

    def _lines(self) -> list[str]:
        """Return the command that hands lines over to the sinks of the logs."""
        return [sys.executable, "-P", "-m", "modelyard", "logs", "--send", "--follow", "-f", str(self._spec.path)]

    def _begin_alerts(self) -> None:
        """Note that people are told of what happens from now on, before their sender has started."""
        if self._spec.alerts:
            from modelyard.automation.alerts.outbox import begin
            from modelyard.automation.alerts.routes import targets

            begin(self._store, targets(self._spec))

    def _sender(self) -> list[str]:
        return [sys.executable, "-P", "-m", "modelyard.automation.alerts", str(self._spec.path)]

    def _state(self) -> DaemonState:
        children = [self._link.state, *(child.state for child, _ in self._children.values())]
        return msgspec.structs.replace(
            self._start,
            ready=self._ready,
            children=tuple(children),
            triggers=tuple(looker.state for looker, _ in self._lookers),
            fire=self._dispatcher.fire,
            run=self._dispatcher.run,
            queued=self._dispatcher.queued,
            problem=self._dispatcher.problem or self._problem,
            hooks=self._hooks.address,
            holds=self._dispatcher.holds,
        )
