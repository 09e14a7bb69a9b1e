"""Find the run that a deployed model comes from: the way back from a server's logs to where its model was made."""

from __future__ import annotations

from modelyard.records import Deployment, Event, ModelVersion, read_value
from modelyard.store.base import Ledger

__all__ = ["origin"]


def origin(ledger: Ledger, deployment: Deployment) -> str:
    """Return the trace of the run that a deployment's model comes from; empty if no run is known.

    A person who promotes or rolls back points at what some run has made: that run's trace is the way back. A run that
    takes the model out of the cache has not made it.
    """
    model = deployment.model
    moves = ledger.events(kinds=("alias.moved",))
    pointing = list(dict.fromkeys(e.run for e in moves if e.run and _points_at(e, model)))
    # Most often the first run that pointed there made it: its events are few, all events are many.
    made = next((run for run in pointing if _making(ledger, model, run)), "") or _making(ledger, model)
    known = (run for name in (made, *pointing) if name and (run := ledger.run(name)) is not None)
    return next((run.trace for run in known), "")


def _making(ledger: Ledger, model: ModelVersion, run: str = "") -> str:
    """Return the first run, or this one, in which a step made the model; empty if none did."""
    events = ledger.events(run=run, kinds=("step.finished",))
    return next((e.run for e in events if _released(e, model)), "")


def _points_at(event: Event, model: ModelVersion) -> bool:
    to = read_value(event.payload["deployment"])
    return isinstance(to, Deployment) and to.model.identity == model.identity


def _released(event: Event, model: ModelVersion) -> bool:
    values = map(read_value, event.payload["outputs"].values())
    return any(isinstance(value, ModelVersion) and value.identity == model.identity for value in values)
