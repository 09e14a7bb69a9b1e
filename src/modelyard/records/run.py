"""A run as it is read from its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from modelyard.records.event import Event

__all__ = ["Run", "RunStatus", "StepRun", "StepStatus", "fold_run", "step_run"]

RunStatus = Literal["running", "succeeded", "failed", "cancelled", "interrupted"]
StepStatus = Literal["running", "succeeded", "cached", "failed", "interrupted"]


class StepRun(msgspec.Struct, frozen=True, kw_only=True):
    """One step in one run.

    Attributes:
        name: Name of the step.
        status: How it stands.
        key: Output key (digest of code, params, inputs and environment).
        started: Seconds since 1970 UTC.
        seconds: Wall time.
        cpu_seconds: CPU time of the step itself.
        outputs: Output name -> plain JSON of the value.
        state: What the probe of a measuring step saw, so that it can be measured again.
        made_of: Digests that the key was made of (`code`, `params`, `inputs`, `state`, `environment`), so that a
            later plan can say what changed.
        error: `{"code", "message", "hint", "trace"}` of a failed step.
    """

    name: str
    status: StepStatus
    key: str = ""
    started: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    outputs: dict[str, Any] = {}
    state: Any = None
    made_of: dict[str, str] = {}
    error: dict[str, Any] = {}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        id: Its id.
        project: Name of the project.
        status: How it stands. `interrupted`: its process died; the next run goes on from its steps.
        started: Seconds since 1970 UTC.
        ended: The same, 0 while it runs.
        actor: Who started it.
        plan: Digest of the plan; the plan itself is a blob under this digest.
        steps: Its steps, in the order in which they began.
        reason: Why it failed or was cancelled.
        result: Digest over the tables, models and repeatable evidence it made; equal work has an equal digest.
    """

    id: str
    project: str
    status: RunStatus
    started: float
    ended: float = 0.0
    actor: str = ""
    plan: str = ""
    steps: tuple[StepRun, ...] = ()
    reason: str = ""
    result: str = ""

    @property
    def seconds(self) -> float:
        """Wall time, 0 while it runs."""
        return max(0.0, self.ended - self.started)

    def step(self, name: str) -> StepRun:
        """Return the step called `name`.

        Raises:
            KeyError: The run has none.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def __getitem__(self, name: str) -> Any:
        """Return the output `step` or `step#output` as plain JSON."""
        step, _, output = name.partition("#")
        outputs = self.step(step).outputs
        return outputs[output] if output else next(iter(outputs.values()))


def step_run(event: Event) -> StepRun:
    """Return a finished or cached step as its event tells it."""
    body = event.payload
    seconds = body.get("seconds", 0.0)
    return StepRun(
        name=event.step,
        status="cached" if event.kind == "step.cached" else "succeeded",
        key=body["key"],
        started=event.time - seconds,
        seconds=seconds,
        cpu_seconds=body.get("cpu_seconds", 0.0),
        outputs=body["outputs"],
        state=body.get("state"),
        made_of=body.get("made_of", {}),
    )


def fold_run(events: Iterable[Event]) -> Run | None:
    """Fold the events of one run, in order, into a `Run`; none if there is no start among them."""
    run: Run | None = None
    steps: dict[str, StepRun] = {}
    for event in events:
        body = event.payload
        match event.kind:
            case "run.started":
                run = Run(
                    id=event.run,
                    project=body["project"],
                    status="running",
                    started=event.time,
                    actor=event.actor,
                    plan=body.get("plan", ""),
                )
            case "step.started":
                steps[event.step] = StepRun(
                    name=event.step, status="running", key=body.get("key", ""), started=event.time
                )
            case "step.finished" | "step.cached":
                steps[event.step] = step_run(event)
            case "step.failed":
                steps[event.step] = StepRun(
                    name=event.step,
                    status="failed",
                    key=body.get("key", ""),
                    started=event.time - body.get("seconds", 0.0),
                    seconds=body.get("seconds", 0.0),
                    error=body["error"],
                )
            case "run.finished" if run is not None:
                run = msgspec.structs.replace(
                    run,
                    status=body["status"],
                    ended=event.time,
                    reason=body.get("reason", ""),
                    result=body.get("result", ""),
                )
    if run is None:
        return None
    done = tuple(steps.values())
    if run.status != "running":
        # A step that was cut off when its run ended is not running any more.
        done = tuple(msgspec.structs.replace(s, status="interrupted") if s.status == "running" else s for s in done)
    return msgspec.structs.replace(run, steps=done)
