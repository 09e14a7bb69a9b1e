"""What earlier runs say of a new one: how long a step takes as a rule, and what likely caused that it failed."""

from __future__ import annotations

from modelyard._kit.errors import ModelyardError
from modelyard.pipeline.causes import cause_of
from modelyard.store import Store

__all__ = ["History"]

# Newest runs that are looked at; what lies further back says little of today.
_RUNS = 20


class History:
    """Earlier runs of a project; what was read once is kept, since a finished run does not change.

    Args:
        store: The project's store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seconds: dict[str, dict[str, float]] = {}

    def usual(self, step: str) -> list[float]:
        """Return the seconds that a step took in the newest runs in which it really ran."""
        known: dict[str, dict[str, float]] = {}
        for run in self._store.ledger.runs(limit=_RUNS):
            if run.status != "running":
                known[run.id] = self._seconds[run.id] if run.id in self._seconds else self._read(run.id)
        self._seconds = known
        return [seconds[step] for seconds in known.values() if step in seconds]

    def cause(self, run_id: str, step: str) -> list[tuple[str, str]]:
        """Return the likely cause of a failure and what to do, as facts; none where it cannot be told."""
        run = self._store.ledger.run(run_id)
        try:
            found = cause_of(self._store, run, step) if run is not None else None
        except (ModelyardError, OSError, ValueError):
            # A blob that is gone, or of another version: an alert without a cause is better than none.
            return []
        return [("likely cause", f"{found.kind}: {found.says}"), ("next step", found.next)] if found else []

    def _read(self, run_id: str) -> dict[str, float]:
        run = self._store.ledger.run(run_id)
        return {s.name: s.seconds for s in run.steps if s.status == "succeeded"} if run is not None else {}
