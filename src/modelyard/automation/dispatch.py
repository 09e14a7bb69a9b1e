"""Hand the fires of one project to its runner, one after another, until each has ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

from modelyard._kit.clock import Clock
from modelyard._kit.errors import ModelyardError, StepFailed
from modelyard.automation.apart import pause
from modelyard.automation.fires import drop
from modelyard.automation.fresh import Mark, mark
from modelyard.automation.gate import GO, Gate, Hold
from modelyard.automation.link import RunnerLink
from modelyard.automation.notes import Say, note
from modelyard.automation.process import how
from modelyard.automation.queue import Queue, choose
from modelyard.automation.runner import Said
from modelyard.pipeline.cancel import ask
from modelyard.pipeline.dead import fail_fire, settle_dead
from modelyard.records import Fire
from modelyard.store import Store

__all__ = ["Dispatcher"]

# A fire whose process died so often in a row is given up: it would take the runner down for ever.
_DEATHS = 3
# Seconds that a fire is refused before it fails: somebody may be writing the declaration.
_MENDING = 10.0
# Seconds between two tries of whether what keeps all fires from running is mended: it may be in any file.
_MENDED = 3.0
# Seconds between two looks at whether somebody else's run has ended, at most and at least.
_HELD, _SOON = 0.5, 0.05
# Real seconds after which the time is looked at anew: it moves when a clock is set or a machine has slept.
_ANEW = 20.0
# A runner that has done nothing for so long gives its memory back (seconds).
_IDLE = 120.0

T = TypeVar("T")


class Dispatcher:
    """Runs the queue of one project.

    Args:
        project: Name of the project.
        store: Its store.
        desk: Where the store is asked: one that does not answer must not keep the daemon from anything else.
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
        desk: Executor,
        link: RunnerLink,
        slots: asyncio.Semaphore,
        say: Say,
        *,
        clock: Clock,
        pace: float = 1.0,
    ) -> None:
        self._project = project
        self._store = store
        self._desk = desk
        self._link = link
        self._slots = slots
        self._say = say
        self._clock = clock
        self._pace = pace
        self._wake = asyncio.Event()
        # Set once it has looked at the queue for the first time.
        self.looked = asyncio.Event()
        self._served: dict[str, int] = {}
        self._turn = self._failures = 0
        self._ran = time.monotonic()
        self._deaths: Counter[str] = Counter()
        # Fire -> since when it is refused; and the declaration that no fire can run with, why, and when to try again.
        self._refused_since: dict[str, float] = {}
        self._blocked: tuple[Mark, str, float] | None = None
        self._trouble = ""
        self._stopping = False
        # Only to be touched at the desk.
        self._queue = Queue(store)
        # Fires that wait, the newest event that was taken in, and the fire and the run that are under way here.
        self.queued = len(self._queue)
        self.head = 0
        self.fire = ""
        self.run = ""
        # Triggers that have a word when their fires start, and the fires that they hold back.
        self.gates: Mapping[str, Gate] = {}
        self._held: dict[str, Hold] = {}

    @property
    def holds(self) -> dict[str, str]:
        """Return fire -> why its trigger does not let it start yet."""
        return {name: hold.why for name, hold in self._held.items()}

    @property
    def problem(self) -> str:
        """Why no fire can run now; empty: they can."""
        return self._trouble or ("" if self._blocked is None else self._blocked[1])

    def wake(self) -> None:
        """Look at the queue now; to be called in the loop's thread."""
        self._wake.set()

    def stop(self) -> None:
        """Begin no further run."""
        self._stopping = True
        self._wake.set()

    async def cancel_if_asked(self) -> None:
        """End the run under way if somebody, on whichever machine, holds the wish that it ends."""
        run = self.run
        if run and await self._at_desk(lambda: self._store.holder(ask(run))) is not None and run == self.run:
            self._link.interrupt(signal.SIGINT)

    async def work(self) -> None:
        """Run fires until `stop`, and end when the run under way has ended."""
        await self._link.start()
        while not self._stopping:
            self._wake.clear()
            try:
                await self._turn_of_one()
            except Exception as error:  # noqa: BLE001 - a full disk or a lost database passes; the daemon stays
                self._failures += 1
                text = error.problem.message if isinstance(error, ModelyardError) else repr(error)
                if text != self._trouble:
                    self._tell("store", f"nothing can be run now: {text}", name="store")
                self._trouble = text
                self.looked.set()
                await self._sleep(pause(self._failures))
            else:
                self._failures, self._trouble = 0, ""

    async def _turn_of_one(self) -> None:
        fire, wait = await self._at_desk(self._next)
        self.looked.set()
        if fire is None:
            await self._sleep(wait)
            return
        async with self._slots:
            if self._stopping:
                return
            # Others had their turn meanwhile, and somebody else may have taken this one.
            self.fire, self._turn = fire.id, self._turn + 1
            self._served[fire.trigger] = self._turn
            try:
                await self._one(fire)
            finally:
                self.fire = self.run = ""
                self._ran = time.monotonic()

    def _next(self) -> tuple[Fire | None, float]:
        """Return the fire to run now, or for how many real seconds there is none; at the desk."""
        self._queue.refresh()
        if self._queue.running and self._store.holder("run") is None:
            for run in settle_dead(self._store):
                self._tell("run", f"{run} was cut off; it goes on from its finished steps", name=run)
            self._queue.refresh()
        self.queued, self.head = len(self._queue), self._queue.head
        if self._blocked is not None and self._blocked[0] != mark(self._link.file):
            self._blocked = None
        now = self._clock()
        fire = self._let_through(now)
        if fire is not None:
            if self._blocked is not None and time.monotonic() < self._blocked[2]:
                return None, _HELD
            # Another daemon, or a person at a keyboard, may have the project.
            who = self._store.holder("run")
            return (fire, 0.0) if who is None else (None, _patience(who))
        if self._queue.running:
            return None, _patience(self._store.holder("run") or {})
        opens = min([self._queue.opens(now), *(hold.until for hold in self._held.values())])
        return None, min(max(0.0, opens - now) / self._pace, _ANEW)

    def _let_through(self, now: float) -> Fire | None:
        """Return the next fire that its trigger lets start; one that it has given up is dropped. At the desk."""
        ready = self._queue.ready(now)
        waiting = {fire.id for fire in ready}
        self._held = {name: hold for name, hold in self._held.items() if name in waiting and hold.until > now}
        left = [fire for fire in ready if fire.id not in self._held]
        while (fire := choose(left, self._served)) is not None:
            gate = self.gates.get(fire.trigger)
            hold = GO if gate is None else gate.hold(fire, now)
            if not hold.drop and hold.until <= now:
                return fire
            if hold.drop:
                drop(fire, hold.why, self._store)
                self._tell("fire", f"{fire.trigger}: dropped: {hold.why}", name=fire.trigger, fire=fire.id)
            else:
                self._held[fire.id] = hold
            left.remove(fire)
        return None

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        if self._link.jobs and time.monotonic() - self._ran >= _IDLE:
            await self._link.end(5.0)
            await self._link.start()

    async def _one(self, fire: Fire) -> None:
        await self._link.start()
        began = time.monotonic()
        try:
            said = await self._link.run(fire, self._began)
        except EOFError:
            await self._died(fire)
            return
        if not (said.what == "refused" and said.file) and said.what not in ("busy", "taken"):
            self._blocked = None
        match said.what:
            case "ended":
                await self._ended(fire, said, time.monotonic() - began)
            case "busy":
                await self._sleep(_HELD)
            case "refused" if said.error:
                await self._refused(fire, said)
            case _:
                await self._at_desk(lambda: self._queue.look_at(fire.id))

    def _began(self, run: str) -> None:
        self.run = run

    async def _ended(self, fire: Fire, said: Said, seconds: float) -> None:
        self._forget(fire)
        found = await self._at_desk(lambda: self._store.ledger.fire(fire.id))
        state, why = (found.state, found.why) if found else ("", "")
        text = f"{said.run} for {fire.trigger}: {state}{f': {why}' if why else ''} ({seconds:.2f} s)"
        self._tell("run", text, name=said.run, fire=fire.id, state=state, seconds=seconds)

    async def _refused(self, fire: Fire, said: Said) -> None:
        """Give somebody time to mend what is wrong; then the fire fails of it, in a run that is recorded and told of.

        Where the declaration is wrong, or a file that it names, the fires behind it wait until one can run: the next
        is tried now and then, and stays in the queue.
        """
        error = said.error
        blocks = (mark(self._link.file), error["message"], time.monotonic() + _MENDED) if said.file else None
        if self._blocked is not None and blocks is not None:
            self._blocked = blocks
            return
        since = self._refused_since.get(fire.id)
        if since is None:
            since = self._refused_since[fire.id] = time.monotonic()
            self._tell("run", f"{fire.trigger} cannot run: {error['message']}", name=fire.id, **error)
        if time.monotonic() - since < _MENDING:
            await self._sleep(_HELD)
            return
        self._blocked = blocks
        problem = ModelyardError(error["code"], error["message"], where=error["where"], hint=error["hint"])
        await self._give_up(fire, problem)

    async def _died(self, fire: Fire) -> None:
        code = await self._link.died()
        self._deaths[fire.id] += 1
        self._tell("child", f"runner {how(code)} while it ran {fire.trigger}", name="runner", code=code)
        await self._at_desk(lambda: settle_dead(self._store))
        if self._deaths[fire.id] >= _DEATHS:
            message = f"its process died {_DEATHS} times in a row, the last time it {how(code)}"
            await self._give_up(fire, StepFailed("fire-given-up", message, hint="see the log of the daemon"))
        elif not self._stopping:
            await self._sleep(pause(self._deaths[fire.id]))

    async def _give_up(self, fire: Fire, error: ModelyardError) -> None:
        self._forget(fire)
        if await self._at_desk(lambda: fail_fire(fire, self._project, error, self._store, actor=fire.actor)):
            self._tell("run", f"{fire.trigger} failed: {error.problem.message}", name=fire.id, code=error.code)

    def _forget(self, fire: Fire) -> None:
        self._deaths.pop(fire.id, None)
        self._refused_since.pop(fire.id, None)

    async def _at_desk(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._desk, call)

    def _tell(self, what: str, text: str, *, name: str, **more: Any) -> None:
        self._say(note(what, text, name=name, project=self._project, **more))


def _patience(who: Mapping[str, Any]) -> float:
    """Return the seconds until it is worth asking again whether somebody still holds the project."""
    # The lease of a dead holder ends at a known moment, by the database's clock, which may differ from ours.
    return float(min(_HELD, max(_SOON, who.get("expires", float("inf")) - time.time())))
