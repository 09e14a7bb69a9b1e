"""A run as it is read from its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from modelyard.records.event import Event
from modelyard.records.usage import Usage

__all__ = ["Attempt", "Run", "RunStatus", "StepRun", "StepStatus", "fold_run", "step_run"]

RunStatus = Literal["running", "succeeded", "failed", "cancelled", "interrupted", "skipped", "stopped"]
StepStatus = Literal["running", "succeeded", "cached", "failed", "interrupted", "skipped"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a step that failed and was followed by another.

    Attributes:
        number: 1 for the first.
        time: When it ended, seconds since 1970 UTC.
        seconds: Wall time.
        waits: Seconds until the next one.
        usage: What it used.
        error: `{"code", "message", "where", "hint", "trace"}`.
    """

    number: int
    time: float
    seconds: float = 0.0
    waits: float = 0.0
    usage: Usage = Usage()
    error: dict[str, Any] = {}


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
        attempts: The attempts before the last one.
        usage: What the last attempt used; nothing for a step out of the cache.
        capsule: Digest of the blob that a failed step can be replayed from.
        reason: Why it was skipped.
        source: Digest of the blob that tells of the user's files that its function is made of.
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
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = Usage()
    capsule: str = ""
    reason: str = ""
    source: str = ""

    @property
    def used(self) -> Usage:
        """What all attempts together used."""
        return sum((attempt.usage for attempt in self.attempts), self.usage)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        id: Its id.
        project: Name of the project.
        status: How it stands. `interrupted`: its process died; the next run goes on from its steps. `skipped`: its
            data were stale, so nothing after the guard ran. `stopped`: its budget was spent.
        started: Seconds since 1970 UTC.
        ended: The same, 0 while it runs.
        actor: Who started it.
        plan: Digest of the plan; the plan itself is a blob under this digest.
        steps: Its steps, in the order in which they began.
        reason: Why it failed or was cancelled.
        result: Digest over the tables, models and repeatable evidence it made; equal work has an equal digest.
        fire: Id of the fire that asked for it; empty for a run that a person started.
        trace: Id that ties it to its fire, log lines, alerts and requests: 32 hex digits.
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
    fire: str = ""
    trace: str = ""

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
        usage=msgspec.convert(body.get("usage", {}), Usage),
        source=body.get("source", ""),
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
                    fire=body.get("fire", ""),
                    trace=body.get("trace", ""),
                )
            case "run.finished" if run is not None:
                for name, used in body.get("cut", {}).items():
                    if name in steps:
                        steps[name] = msgspec.structs.replace(steps[name], usage=msgspec.convert(used, Usage))
                run = msgspec.structs.replace(
                    run,
                    status=body["status"],
                    ended=event.time,
                    reason=body.get("reason", ""),
                    result=body.get("result", ""),
                )
            case _:
                _take_step(steps, event)
    if run is None:
        return None
    done = tuple(steps.values())
    if run.status != "running":
        # A step that was cut off when its run ended is not running any more.
        done = tuple(msgspec.structs.replace(s, status="interrupted") if s.status == "running" else s for s in done)
    return msgspec.structs.replace(run, steps=done)


def _take_step(steps: dict[str, StepRun], event: Event) -> None:
    """Fold one event of a step into the steps of its run."""
    body = event.payload
    match event.kind:
        case "step.started":
            steps[event.step] = StepRun(
                name=event.step,
                status="running",
                key=body.get("key", ""),
                started=event.time,
                attempts=_attempts(steps, event.step),
            )
        case "step.finished" | "step.cached":
            steps[event.step] = msgspec.structs.replace(step_run(event), attempts=_attempts(steps, event.step))
        case "step.retried":
            attempts = (*_attempts(steps, event.step), _attempt(event))
            steps[event.step] = StepRun(
                name=event.step, status="running", key=body["key"], started=event.time, attempts=attempts
            )
        case "step.skipped":
            steps[event.step] = StepRun(
                name=event.step, status="skipped", started=event.time, reason=body.get("reason", "")
            )
        case "step.failed":
            steps[event.step] = StepRun(
                name=event.step,
                status="failed",
                key=body.get("key", ""),
                started=event.time - body.get("seconds", 0.0),
                seconds=body.get("seconds", 0.0),
                error=body["error"],
                attempts=_attempts(steps, event.step),
                usage=msgspec.convert(body.get("usage", {}), Usage),
                capsule=body.get("capsule", ""),
                made_of=body.get("made_of", {}),
                source=body.get("source", ""),
            )


def _attempts(steps: dict[str, StepRun], name: str) -> tuple[Attempt, ...]:
    return steps[name].attempts if name in steps else ()


def _attempt(event: Event) -> Attempt:
    body = event.payload
    return Attempt(
        number=body["attempt"],
        time=event.time,
        seconds=body.get("seconds", 0.0),
        waits=body["waits"],
        usage=msgspec.convert(body.get("usage", {}), Usage),
        error=body["error"],
    )
