"""What the events of a run carry: plain JSON of what happened to a step, and the order of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import UserError
from modelyard.pipeline.execute import Failure, Outcome, Task
from modelyard.pipeline.keys import Key
from modelyard.pipeline.retry import Again
from modelyard.records import Plan, StepRun

__all__ = ["cached_body", "failed_body", "finished_body", "order_of", "result_of", "retried_body"]


def finished_body(
    task: Task, outcome: Outcome, made_of: Mapping[str, str], *, source: str, beside: bool
) -> dict[str, Any]:
    """Return what `step.finished` carries.

    Args:
        task: What ran.
        outcome: What came of it.
        made_of: Ingredient of its key -> digest.
        source: Digest of the source files that the user's function rests on; empty for a built-in step.
        beside: It had a process of its own.
    """
    body: dict[str, Any] = {
        "key": task.key,
        "outputs": outcome.outputs,
        "made_of": made_of,
        "seconds": outcome.seconds,
        "cpu_seconds": outcome.cpu_seconds,
        "usage": msgspec.to_builtins(outcome.usage),
    }
    if source:
        body["source"] = source
    if outcome.notes:
        body["notes"] = outcome.notes
    if beside:
        body["asked_cpus"] = task.step.resources.cpus
    if task.step.measures and task.state is not None:
        body["state"] = task.state
    return body


def retried_body(task: Task, outcome: Outcome, failure: Failure, following: Again) -> dict[str, Any]:
    """Return what `step.retried` carries."""
    body = {
        "key": task.key,
        "attempt": task.attempt,
        "waits": following.wait,
        "seconds": outcome.seconds,
        "usage": msgspec.to_builtins(outcome.usage),
        "error": msgspec.to_builtins(failure),
    }
    if outcome.notes:
        body["notes"] = outcome.notes
    return body


def failed_body(task: Task | None, outcome: Outcome) -> dict[str, Any]:
    """Return what `step.failed` carries besides its source and capsule."""
    body = {
        "key": task.key if task else "",
        "seconds": outcome.seconds,
        "usage": msgspec.to_builtins(outcome.usage),
        "error": msgspec.to_builtins(outcome.failure),
    }
    if outcome.notes:
        body["notes"] = outcome.notes
    return body


def cached_body(key: Key, hit: StepRun) -> dict[str, Any]:
    """Return what `step.cached` carries of the step that ran."""
    body = {"key": key.digest, "outputs": hit.outputs, "made_of": key.made_of}
    if hit.source:
        body["source"] = hit.source
    return body if hit.state is None else {**body, "state": hit.state}


def result_of(made: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the digest over the tables and models that a run made: timings and places are not part of it.

    Args:
        made: Step -> output -> plain JSON.
    """
    digests = {
        f"{step}#{name}": value["digest"]
        for step, outputs in sorted(made.items())
        for name, value in outputs.items()
        if isinstance(value, dict) and value.get("kind") in ("table", "model")
    }
    return digest_of(digests)


def order_of(plan: Plan) -> TopologicalSorter[str]:
    """Return the order in which the steps of a plan may run.

    Raises:
        UserError: Steps wait for each other (`plan-cycle`).
    """
    order: TopologicalSorter[str] = TopologicalSorter({step.name: step.upstream for step in plan.steps})
    try:
        order.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise UserError(
            "plan-cycle", f"steps wait for each other: {circle}", hint="take one of the inputs away"
        ) from error
    return order
