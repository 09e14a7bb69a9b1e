"""The values that flow: frozen, plain data, JSON both ways, with a digest or an id.

None of them knows where it is stored. `AnyValue` is the union of everything a step may take or return;
`read_value` turns stored JSON back into the value it was.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from modelyard._kit.digest import digest_of
from modelyard.records.alert import Alert, AlertKind, AlertState, Urgency, alert_of
from modelyard.records.base import Value, plain
from modelyard.records.card import Block, Card, Fact, Section
from modelyard.records.check import Check, CheckResult, Evidence, Interval, Limit, Status
from modelyard.records.deployment import Alias, Deployment, Request
from modelyard.records.event import Draft, Event, EventKind
from modelyard.records.file import File, FileDraft
from modelyard.records.fire import Fire, FireState, Item, TriggerKind, fire_of
from modelyard.records.model import Candidate, Feature, Gone, ModelVersion, Problem, Signature, Task
from modelyard.records.plan import Plan, Resources, Retry, Step
from modelyard.records.run import Attempt, Run, RunStatus, StepRun, StepStatus, fold_run, step_run
from modelyard.records.runtime import RUNTIMES, Decision, Runtime, RuntimeName
from modelyard.records.table import Column, TableVersion
from modelyard.records.usage import Budget, Prices, Usage

__all__ = [
    "RUNTIMES",
    "Alert",
    "AlertKind",
    "AlertState",
    "Alias",
    "AnyValue",
    "Attempt",
    "Block",
    "Budget",
    "Candidate",
    "Card",
    "Check",
    "CheckResult",
    "Column",
    "Decision",
    "Deployment",
    "Draft",
    "Event",
    "EventKind",
    "Evidence",
    "Fact",
    "Feature",
    "File",
    "FileDraft",
    "Fire",
    "FireState",
    "Gone",
    "Interval",
    "Item",
    "Limit",
    "ModelVersion",
    "Plan",
    "Prices",
    "Problem",
    "Request",
    "Resources",
    "Retry",
    "Run",
    "RunStatus",
    "Runtime",
    "RuntimeName",
    "Section",
    "Signature",
    "Status",
    "Step",
    "StepRun",
    "StepStatus",
    "TableVersion",
    "Task",
    "TriggerKind",
    "Urgency",
    "Usage",
    "Value",
    "alert_of",
    "fire_of",
    "fold_run",
    "identity",
    "plain",
    "read_value",
    "step_run",
    "values_of",
]

AnyValue = (
    TableVersion | ModelVersion | Candidate | Problem | Check | CheckResult | Evidence | Card | Deployment | File | Gone
)

_KINDS = {
    "table",
    "model",
    "gone",
    "candidate",
    "problem",
    "check",
    "check_result",
    "evidence",
    "card",
    "deployment",
    "file",
}


def read_value(data: Any) -> Any:
    """Turn plain JSON back into the value it was; lists are read item by item, other JSON stays as it is."""
    if isinstance(data, list):
        return [read_value(item) for item in data]
    if isinstance(data, dict) and data.get("kind") in _KINDS:
        return msgspec.convert(data, AnyValue)
    return data


def identity(value: Any) -> str:
    """Return the digest that stands for a value in the keys of later steps."""
    if isinstance(value, Value):
        return value.identity
    if isinstance(value, list | tuple):
        return digest_of([identity(item) for item in value])
    return digest_of(value)


V = TypeVar("V")


def values_of(run: Run, kind: type[V]) -> list[V]:
    """Return every value of a kind that a run made or found, in the order of its steps; lists are looked into."""
    found: list[V] = []
    for step in run.steps:
        for raw in step.outputs.values():
            value = read_value(raw)
            items = value if isinstance(value, list) else [value]
            found.extend(item for item in items if isinstance(item, kind))
    return found
