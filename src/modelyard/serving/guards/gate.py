"""The guards of one version, on both sides of its model; there is no gate where nothing is declared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.inference import Bundle, Feeds
from modelyard.serving.asked import Asked
from modelyard.serving.guards.incoming import Incoming
from modelyard.serving.guards.outgoing import Outgoing, Withheld
from modelyard.serving.guards.policy import Guarded, Policy
from modelyard.serving.observability.log import RequestLog
from modelyard.serving.observability.metrics import Tally
from modelyard.serving.parsed import Parsed
from modelyard.serving.validate import Validator

if TYPE_CHECKING:
    import numpy as np

    from modelyard.serving.guards.asking import Asking
    from modelyard.serving.guards.checks import Checks

    Array = np.ndarray[Any, Any]
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

    Attributes:
        checks: What looks at the answers before anybody gets them; none where nothing is declared that could mark one.
        asking: What watches callers that may copy the model; none where that is not declared.

    Raises:
        ServeError: What is declared does not suit the model (`guard-unusable`).
    """

    def __init__(self, bundle: Bundle, validator: Validator, policy: Policy, tally: Tally, log: RequestLog) -> None:
        guards = policy.guards or Guarded()
        signature = bundle.signature
        labels = bundle.labels or signature.problem.classes
        self._incoming = Incoming(bundle, validator, guards, tally)
        self._outgoing = Outgoing(signature.problem, labels, guards, policy.access.show, tally)
        self.asking: Asking | None = None
        if guards.extraction is not None:
            # A server that does not use them should not wait for these to load.
            from modelyard.serving.guards.asking import Asking

            self.asking = Asking(bundle, validator, guards.extraction, tally.decide)
        self.checks: Checks | None = None
        if guards.checks:
            from modelyard.serving.guards.checks import Checks

            hidden, project = policy.requests.redact, Path(policy.project)
            checks = Checks(guards.checks, bundle, validator, tally.decide, project, redact=hidden)
            self.checks = None if checks.idle else checks
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

    def lets_pass(self, group: list[Asked], output: Array) -> bool:
        """Say that no answer of a group needs a look of its own: nothing is held, changed or shown in part.

        Args:
            group: The requests; who asked what is noted here if all pass, and else as each is answered.
            output: The model's output for the rows of those that fit.
        """
        marked = self.checks is not None and self.checks.marked
        if self._incoming.held or marked or not self._outgoing.lets_pass(output):
            return False
        if self.asking is not None:
            self.asking.note_all(group, len(output))
        return True

    def harmless(self, feeds: Feeds) -> bool:
        """Say that nothing would be said of rows on their way to the model; of none is anything counted here."""
        return self._incoming.harmless(feeds)

    def clears(self, parsed: Parsed, output: Array) -> bool:
        """Say that no answer needs a look of its own; nothing is noted or counted here.

        Args:
            parsed: Rows that are `harmless`.
            output: The model's output for them.
        """
        return self._outgoing.lets_pass(output) and (self.checks is None or self.checks.clear_rows((parsed,), output))

    def note(self, callers: list[str], parsed: Parsed) -> None:
        """Note who asked for rows, all of which are answered.

        Args:
            callers: Of each row.
            parsed: The rows.
        """
        if self.asking is not None:
            self.asking.note_alone(callers, parsed)

    def answer(self, asked: Asked) -> tuple[Asked | Shown, bool]:
        """Return what the caller sees, and whether the request is held back.

        Raises:
            HttpError: The model's answer is none.
            Withheld: There is none for the caller, and the protocol has no place for that.
        """
        if self.asking is not None:
            self.asking.note(asked.exchange.caller, asked.parsed)
        held = self._incoming.held.pop(id(asked.parsed), ())
        marks = self.checks.take(asked.parsed) if self.checks is not None else ()
        try:
            return self._outgoing.answer(asked, held, marks), bool(held)
        except Withheld as error:
            error.apart = bool(held)
            raise

    def forget(self, group: list[Asked]) -> None:
        """Take requests that are not answered."""
        for asked in group:
            self._incoming.held.pop(id(asked.parsed), None)
            if self.checks is not None:
                self.checks.take(asked.parsed)

    def attempt(self, group: list[Parsed]) -> Feeds:
        """Return the feeds of rows that nobody asked for: nothing is refused, held back or counted."""
        return self._incoming.attempt(group)

    def close(self) -> None:
        """Let go of the threads."""
        if self.checks is not None:
            self.checks.close()
