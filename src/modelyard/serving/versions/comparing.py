"""Look now and then at what both versions of an A/B test have answered, beside the answers and beside the ledger."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import msgspec

from modelyard.checks.ab import Compared, Question, compare
from modelyard.checks.arms import Arms
from modelyard.serving.told import keep_voice, say
from modelyard.serving.versions.rollout import Rollout

__all__ = ["Comparing"]

# Seconds between two looks at least; and as many times as long as a look took, so that it takes a fiftieth of a core.
_EVERY, _RESTS = 1.0, 50.0


class Comparing:
    """The A/B test of one challenger.

    Args:
        rollout: The two versions.
        question: What is to be found out.
        log: The request log of the endpoint, which all its processes write.
        since: Time from which on requests count, in seconds since 1970 UTC.
    """

    def __init__(self, rollout: Rollout, question: Question, log: Path, since: float) -> None:
        models = (rollout.champion.version.digest, rollout.challenger.version.digest)
        self._arms = Arms(models, since, question, classes=rollout.champion.problem.classes)
        self._question = question
        self._log = log
        self._since = since
        self._due = 0.0
        self._trouble = ""
        self._reading: threading.Thread | None = None
        self._found: Compared | None = None

    def look(self) -> Compared | None:
        """Return what the traffic said when the log was last read, once there is a decision; never waits for the log.

        A process that joins a test of many days has minutes to read, and whoever asks has to hear of a kill switch
        meanwhile.
        """
        reading = self._reading is not None and self._reading.is_alive()
        if self._found is None and not reading and time.monotonic() >= self._due:
            self._reading = threading.Thread(target=keep_voice(self._read), name="comparing", daemon=True)
            self._reading.start()
        return self._found

    def _read(self) -> None:
        """Read what both have answered since the last look, and compare."""
        began = time.monotonic()
        # Whatever goes wrong, it is not tried at each look.
        self._due = began + _RESTS
        try:
            with closing(sqlite3.connect(f"{self._log.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
                arms = self._arms.read(db)
        except (sqlite3.Error, msgspec.DecodeError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                say(f"the A/B test cannot read the request log: {error}", level="warning")
            return
        ended = time.monotonic()
        self._due = ended + max(_EVERY, _RESTS * (ended - began))
        found = compare(*arms, self._question, time.time() - self._since)
        self._found = None if found.decision == "open" else found
