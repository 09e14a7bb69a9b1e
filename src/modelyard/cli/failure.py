"""Tell of a failed step: what went wrong, what likely caused it, what the attempt had, and how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.clock import as_text
from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound, Tampered
from modelyard._kit.text import number, plural
from modelyard.cli.output import data, paint
from modelyard.records import ModelVersion, Run, StepRun, TableVersion, read_value
from modelyard.security.redact import redact

if TYPE_CHECKING:
    from modelyard.pipeline.capsule import Capsule
    from modelyard.pipeline.causes import Cause
    from modelyard.store import Store

__all__ = ["failure_facts", "print_cause", "print_failure"]


def failure_facts(store: Store, run: Run, step: StepRun) -> dict[str, Any]:
    """Return a failed step with its cause and what its attempt had, for `--json`."""
    from modelyard.pipeline.causes import cause_of
    from modelyard.pipeline.sources import read_source

    facts: dict[str, Any] = {**msgspec.to_builtins(step), "cause": msgspec.to_builtins(cause_of(store, run, step.name))}
    capsule = _opened(store, step)
    source = read_source(step.source, store)
    if source is not None:
        facts["sources"] = msgspec.to_builtins(source)
    if capsule is not None:
        facts["attempt"] = {
            "number": capsule.task.attempt,
            "arguments": capsule.task.step.params,
            "inputs": capsule.task.inputs,
            "state": capsule.task.state,
            "fire": capsule.task.fire,
            "log": capsule.log,
            "environment": _environment(store, capsule.environment),
            "host": capsule.host,
            "time": capsule.time,
        }
    return facts


def print_failure(store: Store, run: Run, step: StepRun) -> None:
    """Write a failed step for a person."""
    from modelyard.pipeline.causes import cause_of
    from modelyard.pipeline.sources import read_source

    error = step.error
    where = f" {error['where']}" if error.get("where") else ""
    data(f"\nerror[{error['code']}]{where}: {error['message']}")
    cause = cause_of(store, run, step.name)
    if cause is not None:
        print_cause(cause)
    if len(step.attempts):
        data(f"\n{plural(len(step.attempts) + 1, 'attempt')}")
        for attempt in step.attempts:
            data(f"  {attempt.number}  {as_text(attempt.time)}  {attempt.error.get('message', '')}")
    capsule = _opened(store, step)
    if capsule is not None:
        _print_capsule(store, capsule)
    source = read_source(step.source, store)
    if source is not None:
        data("\ncode as it was")
        for file, digest in {**source.files, **source.left_out}.items():
            data(f"  {file:<28} {short(digest)}")
    if error.get("trace"):
        data(f"\n{error['trace']}")
    data(f"next: modelyard replay {run.id} {step.name}")


def print_cause(cause: Cause) -> None:
    """Write what likely caused a failure."""
    data(f"\nlikely {paint(cause.kind, 'bold')}: {cause.says}")
    data(f"  hint: {cause.next}")


def _opened(store: Store, step: StepRun) -> Capsule | None:
    from modelyard.pipeline.capsule import opened

    try:
        return opened(store, step.capsule) if step.capsule else None
    except (NotFound, Tampered):
        return None


def _environment(store: Store, digest: str) -> Any:
    try:
        return msgspec.json.decode(store.blobs.get(digest))
    except (NotFound, Tampered, msgspec.MsgspecError):
        return digest


def _print_capsule(store: Store, capsule: Capsule) -> None:
    task = capsule.task
    if task.inputs:
        data("\ninputs")
        for name, raw in task.inputs.items():
            data(f"  {name:<20} {_shown(read_value(raw))}")
    if task.step.params:
        data("\narguments")
        for name, value in task.step.params.items():
            data(f"  {name:<20} {_text(value)}")
    if task.fire is not None:
        data(f"\nfired by {task.fire['trigger']} ({task.fire['kind']}), due {as_text(task.fire['due'])}")
    environment = _environment(store, capsule.environment)
    if isinstance(environment, dict):
        data(f"\nPython {environment['python']} on {environment['platform']}, host {capsule.host}")
    if capsule.log:
        data("\nlast lines")
        for line in capsule.log:
            data(f"  {line}")


def _shown(value: Any) -> str:
    if isinstance(value, TableVersion):
        return f"table {value.address or value.name}, {number(value.rows)} rows, {short(value.digest)}"
    if isinstance(value, ModelVersion):
        return f"model {value.family}, {short(value.digest)}"
    if isinstance(value, list):
        return f"{plural(len(value), 'value')}: {', '.join(_shown(v) for v in value[:3])}"
    return _text(value)


def _text(value: Any) -> str:
    text = redact(msgspec.json.encode(value).decode())
    return text if len(text) <= 100 else f"{text[:99]}…"
