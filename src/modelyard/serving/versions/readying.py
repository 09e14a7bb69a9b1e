"""Have versions made ready, and remember those that must not go live, so that they are not tried at every look."""

from __future__ import annotations

import time

from modelyard._kit.digest import short
from modelyard._kit.errors import Tampered
from modelyard.records import Deployment
from modelyard.serving.models import Models
from modelyard.serving.service import Service
from modelyard.serving.told import say
from modelyard.serving.versions.settling import Pointer
from modelyard.serving.versions.stage import BROKEN, Stage, why
from modelyard.store.base import Store

__all__ = ["Readying"]

# Seconds after which a version that could not go live is tried again: a disk may have been away.
_AGAIN = 30.0
# What no server ever answers with, whatever it trusts or is told.
_SEAL = ("bundle-tampered", "bundle-unsigned")


class Readying:
    """Makes versions of one endpoint ready, once each.

    Args:
        stage: Makes them ready.
        models: The models at work.

    Attributes:
        broken: Identity of a version -> why it can never go live, where waiting does not mend it.
    """

    def __init__(self, stage: Stage, models: Models) -> None:
        self._stage = stage
        self._models = models
        self.broken: dict[str, str] = {}
        self._unsealed: set[str] = set()
        # Identity of a version that could not go live -> when it is tried again.
        self._refused: dict[str, float] = {}

    def ready(self, store: Store, pointer: Pointer, live: Service | None, *, anew: bool = False) -> Service | None:
        """Return a version ready to answer, made ready anew or as it is here; none if it must not go live.

        Args:
            store: Where its bundle is.
            pointer: Which version.
            live: The version that answers.
            anew: Make it ready although it is here.
        """
        to, model = pointer.to, pointer.to.model
        found = self._models.version(self._stage.endpoint, model.digest)
        if found is not None and not anew:
            self._stage.deaths.watch(pointer)
            return found
        if time.monotonic() < self._refused.get(model.identity, 0.0):
            return None
        deaths = self._stage.deaths
        if live is not None and live.version.digest != model.digest and deaths.found(to):
            # Where no other answers it is tried all the same.
            return None
        deaths.watch(pointer)
        try:
            return self._stage.prepare(store, to)
        except Exception as error:  # noqa: BLE001 - a version that cannot be made ready stops nobody
            said = why(error)
            deaths.forget()
            if isinstance(error, BROKEN):
                self.broken[model.identity] = said
            if isinstance(error, Tampered) and error.code in _SEAL:
                self._unsealed.add(model.identity)
        if model.identity not in self._refused:
            then = f"{short(live.version.digest)} goes on" if live is not None else "none answers"
            say(f"error: {to.alias} {short(model.digest)} does not go live, {then}: {said}", level="error")
        self._refused[model.identity] = time.monotonic() + _AGAIN
        return None

    def never(self, to: Deployment) -> str:
        """Return why a version can never go live, where waiting does not mend it; empty if it may."""
        return self.broken.get(to.model.identity, "") or self._stage.deaths.found(to)

    def nowhere(self, to: Deployment) -> bool:
        """Say whether no server can answer with a version: its seal is broken, or processes have died with it."""
        return to.model.identity in self._unsealed or bool(self._stage.deaths.found(to))
