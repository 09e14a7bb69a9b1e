"""Whether a failed attempt is followed by another, when, and with what."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta

import msgspec

from modelyard._kit.clock import Clock, system_clock
from modelyard.pipeline.execute import Failure, Task
from modelyard.records import Retry, Step

__all__ = ["OUT_OF_MEMORY", "Again", "again", "enlarged"]

OUT_OF_MEMORY = "out-of-memory"


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt.

    Attributes:
        task: What to run; after "out of memory" with more of it.
        wait: Seconds until it may start.
    """

    task: Task
    wait: float


def again(
    task: Task,
    failure: Failure,
    *,
    draw: Callable[[float, float], float] = random.uniform,
    clock: Clock = system_clock,
) -> Again | None:
    """Decide on another attempt.

    Args:
        task: What failed; `task.attempt` is 1 for the first.
        failure: Why.
        draw: Draws evenly between two numbers; tests give their own.
        clock: Source of the time, for `not_before`.

    Returns:
        The next attempt; none if the error is a lasting one or the attempts are used up.
    """
    policy = task.step.retry
    if failure.lasting or task.attempt > policy.times:
        return None
    if failure.code == OUT_OF_MEMORY:
        step = enlarged(task.step)
        if step is task.step:
            return None
        task = msgspec.structs.replace(task, step=step)
    wait = draw(0.0, min(policy.most, policy.wait * 2.0 ** (task.attempt - 1)))
    if policy.not_before:
        wait = max(wait, _until(policy, clock()))
    return Again(msgspec.structs.replace(task, attempt=task.attempt + 1), wait)


def enlarged(step: Step) -> Step:
    """Return a step as it is tried again after it ran out of memory; the same one if it has no more then."""
    if step.retry.memory <= step.resources.memory:
        return step
    resources = msgspec.structs.replace(step.resources, memory=step.retry.memory)
    return msgspec.structs.replace(step, resources=resources)


def _until(policy: Retry, now: float) -> float:
    """Return the seconds until the policy's time of day, 0 once it has come: a day begins at midnight."""
    hour, minute = policy.not_before.split(":")
    here = datetime.fromtimestamp(now).astimezone()
    opens = datetime.combine(here.date(), time(int(hour), int(minute)), here.tzinfo)
    return max(0.0, (opens - here) / timedelta(seconds=1))
