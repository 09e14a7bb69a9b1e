"""Follow the ledger while answering: the alias that moves, the challenger beside it, the endpoint that is switched off.

A thread looks at the ledger a few times a second, opens what an alias points at now, checks every byte of it and has it
answer rows of its own profile, all beside the event loop. Only then the loop puts it in the place of the version before
it, in one step: a request is answered by the version that took it, and a version is closed when nothing of it is under
way any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable

from modelyard._kit.digest import short
from modelyard._kit.errors import Busy, ModelyardError
from modelyard._kit.text import seconds_text
from modelyard.records import Alias, Event, EventKind
from modelyard.serving.models import Models
from modelyard.serving.service import Service
from modelyard.serving.told import keep_voice, say
from modelyard.serving.versions.comparing import Comparing
from modelyard.serving.versions.leaving import Leaving
from modelyard.serving.versions.loading import KINDS as LOADING
from modelyard.serving.versions.loading import Loading
from modelyard.serving.versions.probation import Probation
from modelyard.serving.versions.readying import Readying
from modelyard.serving.versions.rollout import Plan, Rollout, alike
from modelyard.serving.versions.settling import TAKEN_BACK, Pointer, conclude, settle
from modelyard.serving.versions.stage import Stage
from modelyard.store.base import Store
from modelyard.store.local import LOCAL
from modelyard.store.opening import open_address

__all__ = ["EVERY", "Follower"]

# Seconds between two looks at the ledger: a rollback takes effect well within one.
EVERY = 0.2
# What is followed.
_ENDPOINT: tuple[EventKind, ...] = ("alias.moved", "endpoint.killed", "endpoint.revived", "ab.finished", *LOADING)
_KINDS: tuple[EventKind, ...] = (*_ENDPOINT, "runtimes.finished")
# Seconds between two looks at what a challenger has answered.
_JUDGED = 0.25


class Follower:
    """Keeps the models of a server as the ledger wants them.

    Args:
        stage: Makes versions ready.
        models: The models at work; only the event loop changes them.
        changed: Is called in the loop when another version answers.
        alias: Which alias is followed.
        address: Address of the store; empty: the folder of the project.
        plan: How a challenger is tried beside the champion.
        since: Number of the newest event when the server began, before which nothing is unloaded; by default now.
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
        since: int | None = None,
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
        # Models whose runtime was decided since we began, until they are made ready anew.
        self._decided_anew: set[str] = set()
        # The version that has taken over of late; the loop writes it.
        self._probation: Probation | None = None
        self._store: Store | None = None
        self._head = 0
        self._pointers: dict[str, Pointer] = {}
        self._killed = ""
        self._shown_killed = ""
        self._readying = Readying(stage, models)
        # Number of the newest event when we began, once we have: what was deployed before is not for us to undo, unless
        # no server can answer with it.
        self._began, self._since = math.inf, math.inf if since is None else since
        # None while it is unloaded.
        self._live: Service | None = models.default
        self._leaving = Leaving(models)
        self.loading = Loading(models, self.later)
        # What is to be written into the ledger.
        self._work: deque[Callable[[Store], None]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=keep_voice(self._follow), name="following", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.trouble = ""

    def begin(self) -> None:
        """Look once before anybody is answered: an endpoint that is switched off stays so."""
        self._look_once()

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
        self._leaving.close()
        if self._models.rollout is not None:
            self._models.rollout.close()

    # -- in the thread

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._look_once()
            self._stop.wait(self._every)
            self._leaving.close()
        if self._store is not None:
            self._store.close()

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
        if self._work:
            # What is to be written may stand there already.
            self._read(self._store)
            self._do(self._store)
        self._read(self._store)
        self._stage.deaths.look()
        self._arrange(self._store)
        if done := self.loading.taken():
            self._in_loop(self.loading.settled, done)

    def _read(self, store: Store) -> None:
        """Take what is new in the ledger."""
        head = store.ledger.head()[0]
        if head != self._head:
            for event in store.ledger.events(after=self._head, kinds=_KINDS):
                self._take(event)
            self._head = head
        if self._began == math.inf:
            # A ledger that could not be read at first is followed from here on.
            self._began, self._since = head, min(self._since, head)

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
        if event.kind == "alias.moved":
            pointer = Pointer.of(event)
            if pointer.to.endpoint == self._stage.endpoint:
                self._pointers[pointer.to.alias] = pointer
        elif event.kind == "runtimes.finished":
            self._decided_anew |= {event.payload["model"]} if event.seq > self._began else set()
        elif event.payload["endpoint"] != self._stage.endpoint:
            return
        elif event.kind == "ab.finished":
            self._decided = event.payload["began"]
        elif event.kind in LOADING:
            self.loading.hear(event, self._since)
        else:
            self._killed = event.payload["reason"] if event.kind == "endpoint.killed" else ""

    def _arrange(self, store: Store) -> None:
        if self._killed != self._shown_killed:
            self._shown_killed = self._killed
            self._in_loop(self._switch, self._killed)
        if not self.loading.wanted:
            if self._live is not None:
                self._live = self._trial = self._test = None
                self._in_loop(self._unload)
            return
        pointer, live = self._pointers.get(self._alias), self._live
        moved = pointer is not None and (live is None or pointer.to.model.digest != live.version.digest)
        if pointer is not None and (moved or self._may_change()):
            anew = pointer.to.model.digest in self._decided_anew
            self._decided_anew.discard(pointer.to.model.digest)
            service = self._readying.ready(store, pointer, live, anew=anew)
            if service is not None:
                self._live = live = service
                self._trial = None
                self._in_loop(self._go_live, service, pointer)
            elif moved and live is not None:
                self._take_back(store, pointer, live.version.digest)
        self.loading.unready = live is None
        if pointer is None or live is None:
            return
        # The loop may put another one in its place at any moment.
        if (probation := self._probation) is not None:
            probation.look(store, pointer)
        if self._plan and self._alias == "champion" and self._loop is not None:
            self._try_challenger(store, pointer, live)

    def _may_change(self) -> bool:
        """Say whether the live version is to be made ready anew: not while it is compared with another one."""
        probation = self._probation
        watched = self._trial is not None or (probation is not None and not probation.done)
        return not watched and self._live is not None and self._live.version.digest in self._decided_anew

    def _take_back(self, store: Store, pointer: Pointer, live: str) -> None:
        """Point the alias back at the version that answers, if a new one is not as it should be."""
        said = self._readying.never(pointer.to)
        # What was deployed before we began may do elsewhere; a broken seal does nowhere, and nor does what kills.
        if not said or (pointer.seq <= self._began and not self._readying.nowhere(pointer.to)):
            return
        moves = store.ledger.aliases(self._stage.endpoint)
        to = next((d for d in reversed(moves) if d.alias == self._alias and d.model.digest == live), None)
        if to is not None:
            with contextlib.suppress(Busy):
                settle(store, (pointer,), pointer.to, to, TAKEN_BACK + said)

    def _try_challenger(self, store: Store, champion: Pointer, live: Service) -> None:
        """Begin, end or settle the trial of a challenger beside the version that answers."""
        wanted = self._pointers.get("challenger")
        on_trial = self._trial.challenger.version.digest if self._trial is not None else ""
        # One that was named before the champion moved is the story of another champion.
        tried = wanted is not None and wanted.seq > champion.seq and wanted.to.model.digest != live.version.digest
        if wanted is None or not tried:
            if self._trial is not None:
                self._trial = None
                self._in_loop(self._tried, None)
        elif on_trial != wanted.to.model.digest:
            self._trial, self._lost = None, ""
            service = self._readying.ready(store, wanted, live)
            if service is None:
                if said := self._readying.never(wanted.to):
                    self._end_trial(store, champion, wanted, f"trial not begun: {said}")
                return
            if not alike(live.signature, service.signature):
                said = "it takes other columns than the champion"
                say(f"error: challenger {short(wanted.to.model.digest)} is not tried: {said}", level="error")
                self._readying.broken[wanted.to.model.identity] = said
                self._end_trial(store, champion, wanted, f"trial not begun: {said}")
                return
            self._trial = Rollout(live, service, self._plan)
            ab, log = self._plan.ab, self._stage.log.path
            self._test = Comparing(self._trial, ab, log, wanted.since) if ab is not None else None
            self._in_loop(self._tried, self._trial)
        elif self._lost:
            self._end_trial(store, champion, wanted, f"canary taken back: {self._lost}")
        elif self._trial is not None and self._trial.held(wanted.since, released=wanted.to.model.released):
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
        before = models.known(endpoint)
        if service.closed:
            # It was on its way out when it was wanted again: the next look makes it ready anew.
            self._live = before
            return
        if before is service:
            return
        models.put(service)
        self._tried(None)
        self._changed()
        said = f"endpoint={endpoint} model={short(service.version.digest)}"
        if before is None:
            say(f"loaded {said}")
            return
        # What was deployed before we began may stay, and so may what a server went back to: it must end somewhere.
        watched = self._alias == "champion" and pointer.seq > self._began and not pointer.back and self._plan.probation
        now, was = service.version.digest, before.version.digest
        # A model whose runtime has changed cannot give its place back to itself.
        self._probation = Probation(service, before, self._plan.probation) if watched and now != was else None
        say(f"swapped {said} was={short(was)}")
        self._leaving.retire(before)

    def _unload(self) -> None:
        """Answer nothing any more, and let go of the version that did."""
        self._tried(None)
        self._probation = None
        before = self._models.unload()
        self._changed()
        say(f"unloaded endpoint={self._stage.endpoint}")
        if before is not None:
            self._leaving.retire(before)

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
            self._leaving.retire(before.challenger)

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
