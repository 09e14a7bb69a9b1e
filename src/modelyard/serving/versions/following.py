"""Follow the ledger while answering: the alias that moves, the challenger beside it, the endpoint that is switched off.

A thread looks at the ledger a few times a second, opens what an alias points at now, checks every byte of it and has it
answer rows of its own profile, all beside the event loop. Only then the loop puts it in the place of the version before
it, in one step: a request is answered by the version that took it, and a version is closed when nothing of it is under
way any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import Busy, ModelyardError
from modelyard._kit.memory import give_back
from modelyard._kit.text import seconds_text
from modelyard.records import Alias, Deployment, Event, EventKind
from modelyard.serving.models import Models
from modelyard.serving.service import Service
from modelyard.serving.told import say
from modelyard.serving.versions.comparing import Comparing
from modelyard.serving.versions.probation import Probation
from modelyard.serving.versions.rollout import Plan, Rollout, alike
from modelyard.serving.versions.settling import TAKEN_BACK, Pointer, conclude, settle
from modelyard.serving.versions.stage import BROKEN, Stage, why
from modelyard.store.base import Store
from modelyard.store.local import LOCAL
from modelyard.store.opening import open_address

__all__ = ["EVERY", "Follower"]

# Seconds between two looks at the ledger: a rollback takes effect well within one.
EVERY = 0.2
# Seconds after which a version that could not go live is tried again: a disk may have been away.
_AGAIN = 30.0
# What is followed.
_KINDS: tuple[EventKind, ...] = ("alias.moved", "endpoint.killed", "endpoint.revived", "ab.finished")
# Seconds between two looks whether a version that was replaced has answered all that it took.
_LEAVING = 0.05
# Seconds between two looks at what a challenger has answered, and its answers before it may become the champion.
_JUDGED = 0.25
ENOUGH = 100


class Follower:
    """Keeps the models of a server as the ledger wants them.

    Args:
        stage: Makes versions ready.
        models: The models at work; only the event loop changes them.
        changed: Is called in the loop when another version answers.
        alias: Which alias is followed.
        address: Address of the store; empty: the folder of the project.
        plan: How a challenger is tried beside the champion.
        every: Seconds between two looks.

    Attributes:
        trouble: Why the ledger cannot be read at the moment; empty when it can.
    """

    def __init__(
        self,
        stage: Stage,
        models: Models,
        changed: Callable[[], None],
        alias: Alias,
        address: str = "",
        plan: Plan = Plan(),  # noqa: B008 - it is frozen
        *,
        every: float = EVERY,
    ) -> None:
        self._stage = stage
        self._models = models
        self._changed = changed
        self._alias = alias
        self._address = address
        self._plan = plan
        self._every = every
        # The challenger on trial, and why it lost its share; the loop writes the second.
        self._trial: Rollout | None = None
        self._lost: str = ""
        # The A/B test that the trial is, and the number of the event with which the newest one that was decided began.
        self._test: Comparing | None = None
        self._decided = 0
        # The version that has taken over of late; the loop writes it.
        self._probation: Probation | None = None
        self._store: Store | None = None
        self._head = 0
        self._pointers: dict[str, Pointer] = {}
        self._killed = ""
        self._shown_killed = ""
        # Identity of a version that could not go live -> when it is tried again; and why, if waiting does not mend it.
        self._refused: dict[str, float] = {}
        self._broken: dict[str, str] = {}
        # Number of the newest event when we began, once we have: what was deployed before is not for us to undo.
        self._began = math.inf
        self._live = models.default
        # Versions that are gone. They were made in the thread and are closed there: what one thread takes from the
        # allocator and another gives back leaves holes, and to free a large model takes longer than an answer may.
        self._gone: deque[Service] = deque()
        # What is to be written into the ledger.
        self._work: deque[Callable[[Store], None]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="following", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.trouble = ""

    def begin(self) -> None:
        """Look once before anybody is answered: an endpoint that is switched off stays so."""
        self._look_once()
        self._began = self._head

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow from now on, for the models of this loop."""
        self._loop = loop
        self._thread.start()

    def later(self, work: Callable[[Store], None]) -> None:
        """Have some work with the store done at the next look, and at those after it until it succeeds."""
        self._work.append(work)

    def close(self) -> None:
        """Follow no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._close_gone()
        if self._models.rollout is not None:
            self._models.rollout.close()

    # -- in the thread

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._look_once()
            self._stop.wait(self._every)
            self._close_gone()
        if self._store is not None:
            self._store.close()

    def _close_gone(self) -> None:
        """Close the versions that are gone, and let go of the memory that they took."""
        if self._gone:
            while self._gone:
                self._gone.popleft().close()
            # The types that rows are read into are circles.
            gc.collect()
            give_back()

    def _look_once(self) -> None:
        try:
            self.look()
        except ModelyardError as error:
            self._told(error.problem.message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on with what it has
            self._told(f"{type(error).__name__}: {error}")
        else:
            self._told("")

    def look(self) -> None:
        """Look at the ledger once, and do what it wants.

        Raises:
            ModelyardError: It cannot be read.
        """
        if self._store is None:
            self._store = open_address(self._stage.project, self._address or LOCAL)
        self._do(self._store)
        ledger = self._store.ledger
        head = ledger.head()[0]
        if head != self._head:
            for event in ledger.events(after=self._head, kinds=_KINDS):
                self._take(event)
            self._head = head
        self._arrange(self._store)

    def _do(self, store: Store) -> None:
        """Do the work that waits."""
        while self._work:
            try:
                self._work[0](store)
            except Busy:
                # Another process holds what is needed: it is done at the next look.
                return
            except Exception as error:  # noqa: BLE001 - what can never be done must not keep us from following
                say(f"error: it cannot be written to the ledger: {type(error).__name__}: {error}", level="error")
            self._work.popleft()

    def _take(self, event: Event) -> None:
        endpoint = self._stage.endpoint
        if event.kind == "alias.moved":
            to = msgspec.convert(event.payload["deployment"], Deployment)
            if to.endpoint == endpoint:
                back = event.actor == "server" and to.reason.startswith(TAKEN_BACK)
                self._pointers[to.alias] = Pointer(to, event.time, event.seq, back)
        elif event.payload["endpoint"] != endpoint:
            return
        elif event.kind == "ab.finished":
            self._decided = event.payload["began"]
        else:
            self._killed = event.payload["reason"] if event.kind == "endpoint.killed" else ""

    def _arrange(self, store: Store) -> None:
        if self._killed != self._shown_killed:
            self._shown_killed = self._killed
            self._in_loop(self._switch, self._killed)
        pointer = self._pointers.get(self._alias)
        if pointer is not None and pointer.to.model.digest != self._live.version.digest:
            service = self._ready(store, pointer.to)
            if service is not None:
                self._live = service
                self._trial = None
                self._in_loop(self._go_live, service, pointer)
            else:
                self._take_back(store, pointer)
        # The loop may put another one in its place at any moment.
        probation = self._probation
        if probation is not None and pointer is not None:
            probation.look(store, pointer)
        if self._plan and self._alias == "champion" and pointer is not None and self._loop is not None:
            self._try_challenger(store, pointer)

    def _take_back(self, store: Store, pointer: Pointer) -> None:
        """Point the alias back at the version that answers, if a new one is not as it should be."""
        said = self._broken.get(pointer.to.model.identity)
        if said is None or pointer.seq <= self._began:
            return
        live = self._live.version.digest
        moves = store.ledger.aliases(self._stage.endpoint)
        to = next((d for d in reversed(moves) if d.alias == self._alias and d.model.digest == live), None)
        if to is not None:
            with contextlib.suppress(Busy):
                settle(store, (pointer,), pointer.to, to, TAKEN_BACK + said)

    def _try_challenger(self, store: Store, champion: Pointer) -> None:
        """Begin, end or settle the trial of a challenger."""
        wanted = self._pointers.get("challenger")
        on_trial = self._trial.challenger.version.digest if self._trial is not None else ""
        # One that was named before the champion moved is the story of another champion.
        tried = wanted is not None and wanted.seq > champion.seq and wanted.to.model.digest != self._live.version.digest
        if wanted is None or not tried:
            if self._trial is not None:
                self._trial = None
                self._in_loop(self._tried, None)
        elif on_trial != wanted.to.model.digest:
            self._trial, self._lost = None, ""
            service = self._ready(store, wanted.to)
            if service is None:
                if said := self._broken.get(wanted.to.model.identity):
                    self._end_trial(store, champion, wanted, f"trial not begun: {said}")
                return
            if not alike(self._live.signature, service.signature):
                said = "it takes other columns than the champion"
                say(f"error: challenger {short(wanted.to.model.digest)} is not tried: {said}", level="error")
                self._broken[wanted.to.model.identity] = said
                self._end_trial(store, champion, wanted, f"trial not begun: {said}")
                return
            self._trial = Rollout(self._live, service, self._plan)
            ab, log = self._plan.ab, self._stage.log.path
            self._test = Comparing(self._trial, ab, log, wanted.since) if ab is not None else None
            self._in_loop(self._tried, self._trial)
        elif self._lost:
            self._end_trial(store, champion, wanted, f"canary taken back: {self._lost}")
        elif self._held(wanted):
            with contextlib.suppress(Busy):
                held = f"canary held for {seconds_text(self._plan.watch)}"
                settle(store, (champion, wanted), champion.to, wanted.to, held)
        elif self._test is not None and self._decided != wanted.seq and (found := self._test.look()) is not None:
            with contextlib.suppress(Busy):
                promote = self._plan.ab is not None and self._plan.ab.promote
                if conclude(store, champion, wanted, found, promote=promote):
                    say(f"A/B test endpoint={self._stage.endpoint} decision={found.decision}: {found.reason}")

    def _end_trial(self, store: Store, champion: Pointer, challenger: Pointer, reason: str) -> None:
        # Another process of this server, or a person, may be at it: then the next look sees what became of it.
        with contextlib.suppress(Busy):
            settle(store, (champion, challenger), challenger.to, champion.to, reason)

    def _held(self, wanted: Pointer) -> bool:
        """Say whether a canary has answered long enough to become the champion."""
        if not self._plan.watch or not self._plan.share or self._trial is None or not wanted.to.model.released:
            return False
        answers = self._trial.tally(self._trial.challenger).answers
        return time.time() - wanted.since >= self._plan.watch and answers >= ENOUGH

    def _ready(self, store: Store, deployment: Deployment) -> Service | None:
        """Return a version ready to answer; none if it must not go live."""
        model = deployment.model
        found = self._models.version(self._stage.endpoint, model.digest)
        if found is not None:
            return found
        if time.monotonic() < self._refused.get(model.identity, 0.0):
            return None
        try:
            return self._stage.prepare(store, deployment)
        except Exception as error:  # noqa: BLE001 - a version that cannot be made ready stops nobody
            said = why(error)
            if isinstance(error, BROKEN):
                self._broken[model.identity] = said
        if model.identity not in self._refused:
            digest = short(model.digest)
            was = short(self._live.version.digest)
            say(f"error: {deployment.alias} {digest} does not go live, {was} goes on: {said}", level="error")
        self._refused[model.identity] = time.monotonic() + _AGAIN
        return None

    def _told(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            say(f"the ledger cannot be followed: {trouble}" if trouble else "the ledger is followed again")

    def _in_loop(self, call: Callable[..., object], *values: object) -> None:
        if self._loop is None:
            call(*values)
        else:
            self._loop.call_soon_threadsafe(call, *values)

    # -- in the loop

    def _switch(self, reason: str) -> None:
        endpoint = self._stage.endpoint
        if reason:
            self._models.kill(endpoint, reason)
            say(f"killed endpoint={endpoint}: {reason}", level="warning")
        else:
            self._models.revive(endpoint)
            if self._models.bell is not None:
                self._models.bell.watcher.reset()
            say(f"revived endpoint={endpoint}")

    def _go_live(self, service: Service, pointer: Pointer) -> None:
        """Put a version in the place of the one before it, in one step."""
        models, endpoint = self._models, self._stage.endpoint
        before = models.find(endpoint)
        if service.closed:
            # It was on its way out when it was wanted again: the next look makes it ready anew.
            self._live = before
            return
        if before is service:
            return
        models.put(service)
        self._tried(None)
        self._changed()
        # What was deployed before we began may stay, and so may what a server went back to: it must end somewhere.
        watched = self._alias == "champion" and pointer.seq > self._began and not pointer.back and self._plan.probation
        self._probation = Probation(service, before, self._plan.probation) if watched else None
        say(f"swapped endpoint={endpoint} model={short(service.version.digest)} was={short(before.version.digest)}")
        self._retire(before)

    def _retire(self, service: Service) -> None:
        """Close a version once nothing of it is under way; one that came back stays."""
        trial = self._models.rollout
        if self._models.find(self._stage.endpoint) is service or (trial is not None and trial.challenger is service):
            return
        if service.in_flight:
            asyncio.get_running_loop().call_later(_LEAVING, self._retire, service)
            return
        service.closed = True
        self._models.drop(service)
        self._gone.append(service)

    def _tried(self, rollout: Rollout | None) -> None:
        """Begin the trial of a challenger in the place of the one before it; none: end it."""
        before = self._models.rollout
        self._models.rollout = None
        if before is not None:
            before.end()
        if rollout is not None and not rollout.challenger.closed and not rollout.champion.closed:
            self._models.put(rollout.challenger, current=False)
            self._models.rollout = rollout
            rollout.begin()
            how = f"answers {rollout.plan.share:.1%}" if rollout.plan.share else "gets copies"
            say(f"trial endpoint={self._stage.endpoint} challenger={short(rollout.challenger.version.digest)} {how}")
            self._judge(rollout)
        if before is not None and (rollout is None or before.challenger is not rollout.challenger):
            self._retire(before.challenger)

    def _judge(self, rollout: Rollout) -> None:
        """Take the share of a challenger that errs away at once; the thread writes it into the ledger."""
        if self._models.rollout is not rollout or self._lost:
            return
        reason = rollout.verdict()
        if reason:
            rollout.end()
            self._lost = reason
            digest = short(rollout.challenger.version.digest)
            say(f"error: challenger {digest} is taken back, the champion answers all: {reason}", level="error")
            return
        asyncio.get_running_loop().call_later(_JUDGED, self._judge, rollout)
