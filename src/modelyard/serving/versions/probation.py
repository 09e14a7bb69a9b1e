"""Look at what a version that has just taken over answers: one that errs gives its place back to the one before it.

Nothing is done for it on the way of an answer. Every version counts what it answers and what it cannot, and the thread
that follows the ledger looks at what has come on top since the version took over.
"""

from __future__ import annotations

import contextlib
import time

from modelyard._kit.clock import Clock
from modelyard._kit.digest import short
from modelyard._kit.errors import Busy
from modelyard.records import Deployment
from modelyard.serving.service import Service
from modelyard.serving.told import say
from modelyard.serving.versions.rollout import Tally, verdict
from modelyard.serving.versions.settling import TAKEN_BACK, Pointer, settle
from modelyard.serving.versions.stage import standing
from modelyard.store.base import Store

__all__ = ["Probation"]


class Probation:
    """The first minutes of one version in the place of another.

    Args:
        service: The version that has taken over.
        before: The one that answered until now; what it could not answer is usual.
        seconds: How long it lasts.
        clock: Source of the time.

    Attributes:
        done: It is over: the version stays, or its place was given back.
    """

    def __init__(self, service: Service, before: Service, seconds: float, clock: Clock = time.monotonic) -> None:
        self._service = service
        # It may have answered before, as a challenger.
        self._first = Tally(service.answered, service.erred)
        # Its digest only: a version that was replaced is closed, and nobody holds it.
        self._before = before.version.digest
        self._usual = Tally(before.answered, before.erred)
        self._until = clock() + seconds
        self._clock = clock
        self._why = ""
        self.done = False

    def look(self, store: Store, pointer: Pointer) -> None:
        """Point the alias back at the version before, if this one errs; in the thread that follows the ledger.

        Args:
            store: Where the ledger is.
            pointer: Where the alias points.
        """
        model = pointer.to.model
        if self.done or pointer.back or model.digest != self._service.version.digest:
            return
        if not self._why:
            # Once it is found it stays, however long the ledger takes.
            self.done = self._clock() >= self._until
            self._why = "" if self.done else self.verdict()
        if not self._why:
            return
        to = self._stood(store, pointer)
        if to is None:
            said = f"error: champion {short(model.digest)} errs, and there is no version before it to go back to"
            say(f"{said}: {self._why}", level="error")
            self.done = True
            return
        # Another process of this server, or a person, may be at it: then the next look sees what became of it.
        with contextlib.suppress(Busy):
            self.done = settle(store, (pointer,), pointer.to, to, TAKEN_BACK + self._why)
            if self.done:
                said = f"error: champion {short(model.digest)} is taken back, {short(self._before)} answers again"
                say(f"{said}: {self._why}", level="error")

    def verdict(self) -> str:
        """Return why the version has to go; empty if it may stay.

        Times and answers are not compared: those of the version before are of another time, when others asked.
        """
        service, first = self._service, self._first
        now = Tally(service.answered - first.answers, service.erred - first.errors)
        return verdict(self._usual, now, classes=False)

    def _stood(self, store: Store, pointer: Pointer) -> Deployment | None:
        """Return the deployment of the version before; none if the ledger knows none, or somebody went back from it."""
        moves = standing(to for to in store.ledger.aliases(pointer.to.endpoint) if to.alias == pointer.to.alias)
        return next((to for to in moves[1:] if to.model.digest == self._before), None)
