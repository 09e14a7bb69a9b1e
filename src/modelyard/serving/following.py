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
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import Busy, ModelyardError
from modelyard._kit.text import seconds_text
from modelyard.inference import open_bundle
from modelyard.records import Alias, Deployment, Draft, Event, plain
from modelyard.security.keys import trusted_keys
from modelyard.serving.limits import Limits
from modelyard.serving.log import RequestLog
from modelyard.serving.models import Models
from modelyard.serving.rehearsal import rehearse
from modelyard.serving.rollout import Plan, Rollout, alike
from modelyard.serving.service import Service
from modelyard.serving.told import say
from modelyard.store.base import Store
from modelyard.store.local import LOCAL
from modelyard.store.opening import open_address
from modelyard.store.origins import origin

__all__ = ["EVERY", "Follower", "Pointer", "Stage", "now", "settle"]

# Seconds between two looks at the ledger: a rollback takes effect well within one.
EVERY = 0.2
# Seconds after which a version that could not go live is tried again: a disk may have been away.
_AGAIN = 30.0
# Seconds between two looks whether a version that was replaced has answered all that it took.
_LEAVING = 0.05
# Seconds between two looks at what a challenger has answered, and its answers before it may become the champion.
_JUDGED = 0.25
ENOUGH = 100


class Pointer(msgspec.Struct, frozen=True):
    """Where an alias points, and since when.

    Attributes:
        to: The deployment.
        since: Time of the move, in seconds since 1970 UTC.
        seq: Number of its event.
    """

    to: Deployment
    since: float
    seq: int


def now(project: Path, endpoint: str, alias: Alias, address: str = "") -> tuple[Path, str] | None:
    """Return the bundle that an alias points at now, and its trace; none where the ledger cannot tell."""
    try:
        with open_address(project, address or LOCAL) as store:
            deployment = store.ledger.alias(endpoint, alias)
            if deployment is None:
                return None
            return store.blobs.folder(deployment.model.address), origin(store.ledger, deployment)
    except ModelyardError as error:
        say(f"the ledger cannot be read: {error.problem.message}", level="warning")
        return None


class Stage:
    """Makes versions ready, off the way of those that answer.

    Args:
        project: Folder of the project: its keys.
        endpoint: Name under which they are served.
        log: Where answered requests go.
        limits: Limits of the server.
        p99: Seconds within which 99 of 100 answers have to be made; 0 means any.
    """

    def __init__(self, project: Path, endpoint: str, log: RequestLog, limits: Limits, p99: float = 0.0) -> None:
        self.project = project
        self.endpoint = endpoint
        self._log = log
        self._limits = limits
        self._p99 = p99

    def prepare(self, store: Store, deployment: Deployment) -> Service:
        """Open a version, check every byte of it, and have it answer rows of its profile.

        Raises:
            ModelyardError: It is not what was signed, cannot be read, or does not answer as it should.
        """
        folder = store.blobs.folder(deployment.model.address)
        bundle = open_bundle(folder, trusted=trusted_keys(self.project), version=deployment.model)
        trace = origin(store.ledger, deployment)
        service = Service(bundle, self.endpoint, self._log, self._limits, trace=trace)
        rehearse(service, p99=self._p99)
        return service


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
        self._store: Store | None = None
        self._head = 0
        self._pointers: dict[str, Pointer] = {}
        self._killed = ""
        self._shown_killed = ""
        # Identity of a version that could not go live -> when it is tried again.
        self._refused: dict[str, float] = {}
        self._live = models.default
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="following", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.trouble = ""

    def begin(self) -> None:
        """Look once before anybody is answered: an endpoint that is switched off stays so."""
        self._look_once()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Follow from now on, for the models of this loop."""
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """Follow no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    # -- in the thread

    def _follow(self) -> None:
        while not self._stop.is_set():
            self._look_once()
            self._stop.wait(self._every)
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
        ledger = self._store.ledger
        head = ledger.head()[0]
        if head != self._head:
            for event in ledger.events(after=self._head, kinds=("alias.moved", "endpoint.killed", "endpoint.revived")):
                self._take(event)
            self._head = head
        self._arrange(self._store)

    def _take(self, event: Event) -> None:
        endpoint = self._stage.endpoint
        if event.kind == "alias.moved":
            to = msgspec.convert(event.payload["deployment"], Deployment)
            if to.endpoint == endpoint:
                self._pointers[to.alias] = Pointer(to, event.time, event.seq)
        elif event.payload["endpoint"] == endpoint:
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
                self._in_loop(self._go_live, service)
        if self._plan and self._alias == "champion" and pointer is not None and self._loop is not None:
            self._try_challenger(store, pointer)

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
                return
            if not alike(self._live.signature, service.signature):
                self._refused[wanted.to.model.identity] = math.inf
                say("error: the challenger takes other columns than the champion, so it is not tried", level="error")
                return
            self._trial = Rollout(self._live, service, self._plan)
            self._in_loop(self._tried, self._trial)
        elif self._lost or self._held(wanted):
            held = f"canary held for {seconds_text(self._plan.watch)}"
            # Another process of this server, or a person, may be at it: then the next look sees what became of it.
            with contextlib.suppress(Busy):
                if self._lost:
                    settle(store, champion, wanted, "challenger", f"canary taken back: {self._lost}")
                else:
                    settle(store, champion, wanted, "champion", held)

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
        except ModelyardError as error:
            said = f"[{error.code}] {error.problem.message}"
        except Exception as error:  # noqa: BLE001 - a version that cannot be made ready stops nobody
            said = f"{type(error).__name__}: {error}"
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
            say(f"revived endpoint={endpoint}")

    def _go_live(self, service: Service) -> None:
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
        self._models.drop(service)
        service.close()

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


def settle(store: Store, champion: Pointer, challenger: Pointer, alias: Alias, reason: str) -> bool:
    """Write how a trial ended, unless somebody has moved an alias since; say whether it was written.

    Args:
        store: Where the ledger is.
        champion: Where the champion pointed during the trial.
        challenger: Where the challenger pointed.
        alias: `challenger` points back at the champion's model, or `champion` moves on to the challenger's.
        reason: Why.

    Raises:
        Busy: Somebody else moves an alias of this endpoint; it is tried again at the next look.
    """
    endpoint = champion.to.endpoint
    with store.hold(f"alias.{endpoint}", who={"actor": "server"}):
        ledger = store.ledger
        if ledger.alias(endpoint, "champion") != champion.to or ledger.alias(endpoint, "challenger") != challenger.to:
            return False
        was, to = (challenger.to, champion.to) if alias == "challenger" else (champion.to, challenger.to)
        deployment = Deployment(
            endpoint=endpoint,
            alias=alias,
            model=to.model,
            revision=was.revision + 1,
            previous=was.model.digest,
            reason=reason,
        )
        ledger.append(
            Draft(kind="alias.moved", actor="server", payload={"deployment": plain(deployment)}), durable=True
        )
    return True
