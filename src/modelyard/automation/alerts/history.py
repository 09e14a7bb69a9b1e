"""What earlier runs say of a new one: how long a step takes as a rule, and what has changed since all was well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelyard._kit.clock import as_text
from modelyard._kit.errors import ModelyardError
from modelyard.pipeline.capsule import opened
from modelyard.records import Run
from modelyard.store import Store

__all__ = ["History", "changes"]

# Newest runs that are looked at; more would not be read by anybody, and cost time.
_RUNS = 20
_LISTED = 4
# Ingredient of a key -> what it is called. What its inputs are follows from the steps before.
_MADE_OF = {"code": "the code of", "params": "the parameters of", "state": "the data that are read by"}


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
                known[run.id] = self._seconds.get(run.id) or self._read(run.id)
        self._seconds = known
        return [seconds[step] for seconds in known.values() if step in seconds]

    def since_good(self, run_id: str) -> tuple[str, str] | None:
        """Return a label and a text on what has changed since the last good run; none where there is none."""
        run = self._store.ledger.run(run_id)
        if run is None:
            return None
        earlier = self._store.ledger.runs(before=run_id, limit=_RUNS)
        newest = next((r for r in earlier if r.status == "succeeded"), None)
        good = self._store.ledger.run(newest.id) if newest is not None else None
        if good is None:
            return None
        found = list(changes(run, good, self._of_failed(run)))
        what = ", ".join(found[:_LISTED]) or "nothing in code, parameters, data or environment"
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        return "changed", f"{what}{more} since the last good run ({good.id}, {as_text(good.ended)})"

    def _read(self, run_id: str) -> dict[str, float]:
        run = self._store.ledger.run(run_id)
        return {s.name: s.seconds for s in run.steps if s.status == "succeeded"} if run is not None else {}

    def _of_failed(self, run: Run) -> dict[str, Mapping[str, str]]:
        """Return what the keys of failed steps were made of: their capsules know."""
        found: dict[str, Mapping[str, str]] = {}
        for step in run.steps:
            if step.capsule:
                try:
                    found[step.name] = opened(self._store, step.capsule).made_of
                except (ModelyardError, ValueError):
                    # Gone, or of another version: then it cannot be compared.
                    continue
        return found


def changes(run: Run, good: Run, failed: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield what differs between two runs, a few words each: `the code of features`.

    Args:
        run: The newer run.
        good: The older one.
        failed: Name of a failed step of the newer run -> what its key was made of.
    """
    before = {step.name: step.made_of for step in good.steps if step.made_of}
    after = {step.name: step.made_of for step in run.steps if step.made_of} | dict(failed)
    environments = [{m["environment"] for m in made.values() if "environment" in m} for made in (before, after)]
    for name, made in after.items():
        if name not in before:
            yield f"{name} is new"
            continue
        for ingredient, words in _MADE_OF.items():
            if made.get(ingredient) != before[name].get(ingredient):
                yield f"{words} {name}"
    if environments[1] - environments[0]:
        yield "the environment"
