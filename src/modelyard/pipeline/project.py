"""Run a project: what a person at the keyboard, a program and a trigger all do."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from modelyard._kit.errors import ModelyardError
from modelyard.pipeline.executors import Executor
from modelyard.pipeline.journal import Observer
from modelyard.pipeline.run import run as run_plan
from modelyard.records import Fire, Run
from modelyard.store import Store

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["run_project"]


def run_project(
    spec: Spec,
    store: Store,
    *,
    actor: str = "",
    executor: Executor | None = None,
    observe: Observer | None = None,
    fire: Fire | None = None,
) -> Run:
    """Run a declaration to its end and publish its card.

    Args:
        spec: What to run.
        store: Its store.
        actor: Who asked for it; the user of the system by default.
        executor: Where steps run; this machine by default.
        observe: Called with each event after it was written.
        fire: What asked for the run.

    Raises:
        ModelyardError: As `modelyard.pipeline.run.run` says.
        Refused: A stage would be an endpoint that another model has, or the model's is a stage of another one
            (`stage-taken`).
    """
    from modelyard._kit.actor import user
    from modelyard.deploy.promotion import declare
    from modelyard.logs.ship import shipping
    from modelyard.pipeline.compose import compose
    from modelyard.pipeline.cost import budget_of
    from modelyard.pipeline.publish import publish

    budget = budget_of(spec, store)
    # A run that comes late, or goes on after a crash, handles the partitions that were newest when it was due.
    # By a clock that was ahead for a moment, none that is not over yet.
    plan = compose(spec, now=min(fire.due, time.time()) if fire else None)
    # What the model may enter is known before there is one.
    if spec.model is not None:
        declare(store, spec.model_name, spec.deploy.stages, file=spec.path.name, actor=actor or user())
    try:
        with shipping(store, spec.logs, project=spec.project):
            finished = run_plan(plan, store, actor=actor, executor=executor, observe=observe, fire=fire, budget=budget)
    except ModelyardError as error:
        # A step knows the path of a field, and not the line that it stands on.
        if error.problem.where in spec.places:
            error.problem = replace(error.problem, where=spec.where(error.problem.where))
        raise
    publish(finished, store)
    return finished
