"""Find the run that a deployed model comes from: the way back from a server's logs to where its model was made."""

from __future__ import annotations

from modelyard.records import Deployment, Event, ModelVersion, read_value
from modelyard.store.base import Ledger

__all__ = ["origin"]


def origin(ledger: Ledger, deployment: Deployment) -> str:
    """Return the trace of the run that a deployment's model comes from; empty if no run is known.

    A person who promotes or rolls back points at what some run has made: that run's trace is the way back.
    """
    model = deployment.model
    moves = list(ledger.events(kinds=("alias.moved",)))
    pointing = [e.run for e in reversed(moves) if e.run and _points_at(e, model)]
    made = next(iter(pointing), "") or next(
        (e.run for e in ledger.events(kinds=("step.finished",)) if _released(e, model)), ""
    )
    run = ledger.run(made) if made else None
    return run.trace if run else ""


def _points_at(event: Event, model: ModelVersion) -> bool:
    to = read_value(event.payload["deployment"])
    return isinstance(to, Deployment) and to.model.identity == model.identity


def _released(event: Event, model: ModelVersion) -> bool:
    values = map(read_value, event.payload["outputs"].values())
    return any(isinstance(value, ModelVersion) and value.identity == model.identity for value in values)
