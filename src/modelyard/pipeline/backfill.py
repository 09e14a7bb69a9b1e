"""Run a partitioned step for every partition of a range, with the steps behind it that are partitioned alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard._kit.clock import system_clock
from modelyard._kit.errors import ModelyardError, NotFound, UserError
from modelyard.pipeline.compose import all_steps
from modelyard.pipeline.executors import Executor
from modelyard.pipeline.journal import Observer
from modelyard.pipeline.own import Own
from modelyard.pipeline.partitions import MARK, Partition, current, expand, requested, starts
from modelyard.pipeline.run import run
from modelyard.records import Event, Plan, Run
from modelyard.store import Store

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["Backfill", "Done", "backfill", "planned"]


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """What a backfill will do.

    Attributes:
        plan: The partitions, and what they need.
        step: The step that is asked for.
        along: The steps behind it that are partitioned alike.
        partitions: The partitions, in order.
    """

    plan: Plan
    step: str
    along: tuple[str, ...]
    partitions: tuple[str, ...]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """How one step of one partition ended.

    Attributes:
        step: Bare name of the step.
        partition: Its partition.
        status: `ran`, `cached` (it was there already), `failed`, or `waits`: what it needs failed.
        seconds: Wall time.
        error: `code`, `message`, `where` and `hint` of a failure.
    """

    step: str
    partition: str
    status: Literal["ran", "cached", "failed", "waits"]
    seconds: float = 0.0
    error: dict[str, str] = {}


def planned(spec: Spec, step: str, *, first: str = "", last: str = "", now: float | None = None) -> Backfill:
    """Return what a backfill will do; nothing is run.

    Args:
        spec: The declaration.
        step: Name of a partitioned step.
        first: Where the range begins: a day, a month or an hour; the start of the step by default.
        last: Where it ends, included; the newest complete partition by default.
        now: Seconds since 1970 UTC; the clock's by default.

    Raises:
        NotFound: There is no such step (`step-not-found`).
        UserError: It is not partitioned (`step-not-partitioned`), or there is no such range (`partition-range`).
    """
    now = system_clock() if now is None else now
    own = all_steps(spec)
    known = [s.name for s in own.steps]
    if step not in known:
        raise NotFound.of("step", step, list(own.partitions) or known)
    partition = own.partitions.get(step)
    if partition is None:
        parted = ", ".join(own.partitions)
        raise UserError(
            "step-not-partitioned",
            f"step `{step}` is not partitioned, so there is nothing to fill",
            where=spec.where(f"steps.{step}"),
            hint=f"partitioned are: {parted}" if parted else "give an own step a `partition`, for example `daily`",
        )
    begins = starts(own.steps, own.partitions)
    keys = requested(partition, begins[step], first, last, now, step)
    along = _along(own, step, partition)
    targets = {name: {key for key in keys if key >= begins[name] or partition.values} for name in (step, *along)}
    recent = current(own.steps, own.partitions, now, needed=False)
    needed = _needed(own, targets, recent)
    wanted = {
        name: [key for key in _all(own.partitions[name], keys, recent[name]) if key in needed[name]]
        for name in own.partitions
        if name in needed
    }
    steps = expand([s for s in own.steps if s.name in needed], own.partitions, wanted, recent)
    made = {f"{name}{MARK}{key}" for name, found in targets.items() for key in found}
    # Beside one another, each in a process of its own; where a step runs is no part of its key.
    beside = [
        msgspec.structs.replace(s, resources=msgspec.structs.replace(s.resources, own_process=True))
        if s.name in made
        else s
        for s in steps
    ]
    plan = Plan(project=spec.project, steps=tuple(beside))
    return Backfill(plan=plan, step=step, along=along, partitions=tuple(keys))


def _along(own: Own, step: str, partition: Partition) -> tuple[str, ...]:
    """Return the steps behind one that are partitioned alike."""
    found = [step]
    for other in own.steps:
        if partition.alike(own.partitions.get(other.name)) and set(other.upstream) & set(found):
            found.append(other.name)
    return tuple(found[1:])


def _needed(own: Own, targets: Mapping[str, set[str]], recent: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return every step that is needed, and of the partitioned ones which partitions."""
    needed = {name: set(keys) for name, keys in targets.items()}
    for step in reversed(own.steps):
        if step.name not in needed:
            continue
        partition = own.partitions.get(step.name)
        for above in step.upstream:
            keys = needed.setdefault(above, set())
            other = own.partitions.get(above)
            if other is not None:
                keys |= needed[step.name] if partition and partition.alike(other) else set(recent[above])
    return needed


def _all(partition: Partition, keys: Sequence[str], recent: Sequence[str]) -> Sequence[str]:
    return partition.values or sorted({*keys, *recent})


def backfill(
    work: Backfill,
    store: Store,
    *,
    actor: str = "",
    executor: Executor | None = None,
    observe: Observer | None = None,
    **more: Any,
) -> tuple[Run, list[Done]]:
    """Run a backfill; a partition that fails does not stop the others, and one that is there already is not run.

    Args:
        work: What `planned` returned.
        store: The project's store.
        actor: Who asked for it; the user of the system by default.
        executor: Where steps run; this machine by default.
        observe: Called with each event after it was written.
        **more: What else `modelyard.pipeline.run.run` takes, such as a budget.

    Returns:
        The run, and how each step of each partition ended, in order.

    Raises:
        ModelyardError: Something that the partitions need failed, or the run could not begin or was stopped.
    """
    ids: list[str] = []

    def noted(event: Event) -> None:
        if event.kind == "run.started":
            ids.append(event.run)
        if observe is not None:
            observe(event)

    failed: ModelyardError | None = None
    try:
        run(
            work.plan, store, actor=actor, executor=executor, observe=noted, keep_going=True, backfill=work.step, **more
        )
    except ModelyardError as error:
        failed = error
    finished = store.ledger.run(ids[0]) if ids else None
    if finished is None or (failed is not None and finished.status != "failed"):
        assert failed is not None  # noqa: S101 - a run that began is in the ledger
        raise failed
    done = list(_ended(work, finished))
    if failed is not None and not any(one.status == "failed" for one in done):
        raise failed
    return finished, done


def _ended(work: Backfill, finished: Run) -> list[Done]:
    steps = {step.name: step for step in finished.steps}
    planned_names = {step.name for step in work.plan.steps}
    found = []
    for name in (work.step, *work.along):
        for key in work.partitions:
            full = f"{name}{MARK}{key}"
            if full not in planned_names:
                continue
            step = steps.get(full)
            if step is None or step.status not in ("succeeded", "cached", "failed"):
                found.append(Done(step=name, partition=key, status="waits"))
                continue
            status: Literal["ran", "cached", "failed"] = (
                "ran" if step.status == "succeeded" else "cached" if step.status == "cached" else "failed"
            )
            error = {k: str(v) for k, v in step.error.items() if k in ("code", "message", "where", "hint")}
            found.append(Done(step=name, partition=key, status=status, seconds=step.seconds, error=error))
    return found
