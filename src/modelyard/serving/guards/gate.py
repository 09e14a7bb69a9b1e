"""The guards of one version, on both sides of its model; there is no gate where nothing is declared."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from modelyard.inference import Bundle, Feeds
from modelyard.serving.asked import Asked
from modelyard.serving.guards.alarm import Watcher
from modelyard.serving.guards.incoming import Incoming
from modelyard.serving.guards.outgoing import Outgoing
from modelyard.serving.guards.policy import Guarded, Policy
from modelyard.serving.log import RequestLog
from modelyard.serving.metrics import Tally
from modelyard.serving.told import say
from modelyard.serving.validate import Parsed, Validator

if TYPE_CHECKING:
    from modelyard.serving.guards.outgoing import Shown

__all__ = ["Gate"]


class Gate:
    """What stands between callers and a model.

    Args:
        bundle: The bundle.
        validator: What rows are held against first.
        policy: What is declared.
        tally: Counts what is decided.
        log: The request log.

    Raises:
        ServeError: What is declared does not suit the model (`guard-unusable`).
    """

    def __init__(self, bundle: Bundle, validator: Validator, policy: Policy, tally: Tally, log: RequestLog) -> None:
        guards = policy.guards or Guarded()
        signature = bundle.signature
        labels = bundle.labels or signature.problem.classes
        self._tally = tally
        self._incoming = Incoming(bundle, validator, guards, tally.decide)
        self._outgoing = Outgoing(signature.problem, labels, guards, policy.access.show, tally.decide)
        self.watcher = Watcher(guards.alarm, _warn, clock=time.monotonic) if guards.alarm is not None else None
        if guards.outlier is not None and guards.outlier.do == "quarantine":
            log.apart()

    @classmethod
    def of(cls, bundle: Bundle, validator: Validator, policy: Policy, tally: Tally, log: RequestLog) -> Gate | None:
        """Return the gate of a model, or none if nothing is declared for it."""
        if policy.guards is None and not policy.access.show:
            return None
        return cls(bundle, validator, policy, tally, log)

    def fit(self, group: list[Parsed]) -> Feeds:
        """Return the feeds of a group without the rows that are refused."""
        return self._incoming.fit(group)

    def answer(self, asked: Asked) -> tuple[Asked | Shown, bool]:
        """Return what the caller sees, and whether the request is held back.

        Raises:
            HttpError: The model's answer is none.
        """
        held = self._incoming.held.pop(id(asked.parsed), ())
        return self._outgoing.answer(asked, held), bool(held)

    def forget(self, group: list[Asked]) -> None:
        """Take requests that are not answered."""
        for asked in group:
            self._incoming.held.pop(id(asked.parsed), None)

    def look(self, answered: int) -> None:
        """Say so if many rows are refused or held back; call it every second or so.

        Args:
            answered: Rows answered since the start.
        """
        if self.watcher is not None:
            self.watcher.look(answered, self._tally.decided)


def _warn(text: str) -> None:
    say(text, level="warning")
