"""Make recorded evidence again from the stored data and model, and say where it differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard.pipeline.code import code_version, find
from modelyard.pipeline.execute import Task, execute
from modelyard.pipeline.network import Within
from modelyard.pipeline.scratch import scratch
from modelyard.records import (
    CheckResult,
    Deployment,
    Evidence,
    Gone,
    ModelVersion,
    Plan,
    Run,
    Step,
    TableVersion,
    identity,
    read_value,
)
from modelyard.store import Store

__all__ = ["Difference", "compare", "measured_steps", "plan_of", "recompute"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a recomputed value is not the recorded one.

    Attributes:
        step: Name of the step.
        what: One sentence with both values.
    """

    step: str
    what: str


def plan_of(run: Run, store: Store) -> Plan:
    """Return the plan that a run followed."""
    return msgspec.json.decode(store.blobs.get(run.plan), type=Plan)


def measured_steps(plan: Plan, target: str) -> list[Step]:
    """Return the measuring steps that a step (a card) rests on, in order."""
    wanted = {target}
    for step in reversed(plan.steps):
        if step.name in wanted:
            wanted.update(step.upstream)
    return [step for step in plan.steps if step.name in wanted and step.measures]


def recompute(
    run: Run, store: Store, *, target: str = "card", each: Callable[[str], None] | None = None
) -> list[Difference]:
    """Run the measuring steps under `target` again, on the recorded inputs, and compare.

    Nothing is written to the project. Volatile evidence (timings) is measured anew and not compared.

    Args:
        run: The run whose evidence is to be made again.
        store: Where its values are.
        target: Step whose upstream is recomputed.
        each: Called with the name of each step before it runs.

    Raises:
        NotFound: The run has no such step.
    """
    plan = plan_of(run, store)
    if target not in {step.name for step in run.steps}:
        raise NotFound.of("step", target, [step.name for step in run.steps])
    found: list[Difference] = []
    with scratch(store) as overlay:
        for step in measured_steps(plan, target):
            if each is not None:
                each(step.name)
            inputs = {name: _recorded(ref, run) for name, ref in step.inputs.items()}
            with Within(step, loading=True):
                function = find(step.verb, store.root)
            task = Task(
                step=step,
                key=f"verify:{step.name}",
                code=code_version(function),
                inputs=inputs,
                state=run.step(step.name).state,
            )
            outcome = execute(task, overlay)
            if outcome.failure is not None:
                found.append(Difference(step.name, f"cannot be recomputed: {outcome.failure.message}"))
                continue
            recorded = run.step(step.name).outputs
            for name, value in outcome.outputs.items():
                found.extend(compare(step.name, read_value(recorded[name]), read_value(value)))
    return found


def _recorded(ref: str | list[str], run: Run) -> Any:
    return [run[one] for one in ref] if isinstance(ref, list) else run[ref]


def compare(step: str, recorded: Any, again: Any) -> list[Difference]:
    """Return where a value that was made again differs from the recorded one."""
    if isinstance(recorded, list) and isinstance(again, list):
        if len(recorded) != len(again):
            return [Difference(step, f"{len(recorded)} results were recorded, {len(again)} came out now")]
        return [d for a, b in zip(recorded, again, strict=True) for d in compare(step, a, b)]
    if isinstance(recorded, CheckResult) and isinstance(again, CheckResult):
        found = _compare_evidence(step, recorded.check.name, recorded.evidence, again.evidence)
        if recorded.status != again.status and not recorded.evidence.volatile:
            found.append(Difference(step, f"{recorded.check.name} {recorded.status}, now {again.status}"))
        return found
    if isinstance(recorded, Evidence) and isinstance(again, Evidence):
        return _compare_evidence(step, recorded.measure, recorded, again)
    if isinstance(recorded, TableVersion) and isinstance(again, TableVersion):
        return _compare_content(step, "table", recorded, again)
    if isinstance(recorded, Deployment) and isinstance(again, Deployment):
        # Where the alias stands now is another matter than where the step would point it.
        return compare(step, recorded.model, again.model)
    if isinstance(recorded, ModelVersion) and isinstance(again, ModelVersion):
        return _compare_content(step, "model", recorded, again)
    return _compare_rest(step, recorded, again)


def _compare_content(
    step: str, kind: str, recorded: TableVersion | ModelVersion, again: TableVersion | ModelVersion
) -> list[Difference]:
    if recorded.digest == again.digest:
        return []
    return [Difference(step, f"{kind} {recorded.name} {short(recorded.digest)}, now {short(again.digest)}")]


def _compare_rest(step: str, recorded: Any, again: Any) -> list[Difference]:
    if isinstance(recorded, Gone):
        # Then there was nothing to measure; that it is back contradicts nothing that was recorded.
        return []
    if isinstance(again, Gone):
        text = (
            f"model {again.model.name} {short(again.model.digest)} is gone from the store: it cannot be measured again"
        )
        return [Difference(step, text)]
    if identity(recorded) != identity(again):
        return [Difference(step, "another value came out")]
    return []


def _compare_evidence(step: str, name: str, recorded: Evidence, again: Evidence) -> list[Difference]:
    if recorded.volatile:
        return []
    # Which code measured it is recorded, and not a difference of what was measured.
    a, b = (msgspec.structs.replace(e, code="") for e in (recorded, again))
    if a == b:
        return []
    if a.value != b.value:
        return [Difference(step, f"{name} {a.value}, now {b.value}")]
    fields = [f for f in ("interval", "n", "details", "data", "model") if getattr(a, f) != getattr(b, f)]
    return [Difference(step, f"{name}: {', '.join(fields) or 'the description'} came out otherwise")]
