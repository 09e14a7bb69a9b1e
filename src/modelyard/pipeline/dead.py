"""Settle what a dead process left behind: runs that say `running`, and fires that could never run."""

from __future__ import annotations

import os
import time

from modelyard._kit.errors import Busy, ModelyardError, Taken
from modelyard._kit.ids import new_id
from modelyard.records import Draft, Fire
from modelyard.store import Store

__all__ = ["fail_fire", "left_running", "settle_dead"]


def left_running(store: Store) -> list[Draft]:
    """Return what closes the runs whose process died.

    Only for one who holds `run`: then none of them can be alive.
    """
    payload = {"status": "interrupted", "reason": "its process died"}
    return [
        Draft(kind="run.finished", run=old.id, payload=payload)
        for old in store.ledger.runs()
        if old.status == "running"
    ]


def settle_dead(store: Store) -> list[str]:
    """Close the runs whose process died, so that their fires are queued again, before any new run begins.

    Returns:
        Ids of the runs that were closed; none while somebody alive holds the project.
    """
    try:
        with store.hold("run", who={"pid": os.getpid(), "since": time.time()}):
            return [event.run for event in store.ledger.append(*left_running(store), durable=True)]
    except Busy:
        return []


def fail_fire(fire: Fire, project: str, error: ModelyardError, store: Store, *, actor: str) -> bool:
    """Record a failed run for a fire that cannot be run at all, so that it ends and is told of like any other.

    Args:
        fire: A fire in the queue.
        project: Name of the project.
        error: Why it cannot run.
        store: The project's store.
        actor: Who gives it up.

    Returns:
        Whether it was recorded; not if somebody else took the fire meanwhile.
    """
    run = new_id("run")
    problem = error.problem
    start = {"project": project, "fire": fire.id, "trace": fire.trace, "pid": os.getpid()}
    reason = f"{problem.where}: {problem.message}" if problem.where else problem.message
    try:
        store.ledger.append(
            Draft(kind="run.started", run=run, actor=actor, payload=start),
            Draft(kind="run.finished", run=run, payload={"status": "failed", "reason": reason, "result": ""}),
            durable=True,
        )
    except Taken:
        return False
    return True
