"""What makes a run bad: a question to a recorded run, and what the run says to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard._kit.errors import NotFound, UserError
from modelyard._kit.text import number
from modelyard.checks.metrics import METRICS
from modelyard.pipeline.partitions import base_name
from modelyard.records import CheckResult, Evidence, Run, StepRun, read_value

__all__ = ["Question", "Verdict", "asked", "unknown"]


@dataclass(frozen=True, slots=True)
class Question:
    """What makes a run bad.

    Attributes:
        says: The question in words.
        judge: Says of a run whether it is bad (none: it has no verdict), with which value, and at which step.
        noun: What is asked for: `step`, `check`, `metric` or `run`.
        name: Its name.
        known: The names that a run has.
    """

    says: str
    judge: Callable[[Run], Verdict]
    noun: str = "run"
    name: str = ""
    known: Callable[[Run], set[str]] = lambda _: set()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says to a question.

    Attributes:
        bad: Whether it is bad; none: it does not say.
        value: What was measured.
        step: Which step says so.
    """

    bad: bool | None
    value: float | None = None
    step: str = ""


def asked(*, step: str = "", check: str = "", metric: str = "", worse_than: float | None = None) -> Question:
    """Return the question: a step failed, a check failed, a metric fell, or (nothing named) the run failed.

    Args:
        step: Name of a step.
        check: Name of a check.
        metric: Name of a measure of recorded evidence; for metrics that Modelyard knows, which side is worse is known.
        worse_than: The last value of the metric that is still good.

    Raises:
        UserError: More than one is named, or a metric without a limit (`bisect-question`).
    """
    if sum(map(bool, (step, check, metric))) > 1:
        raise UserError(
            "bisect-question", "one thing can be asked at a time", hint="give one of --step, --check, --metric"
        )
    if bool(metric) != (worse_than is not None):
        raise UserError(
            "bisect-question",
            "a metric and its limit go together",
            hint="for example `--metric roc_auc --worse-than 0.9`",
        )
    if metric and worse_than is not None:
        low_is_bad = metric not in METRICS or METRICS[metric].higher_is_better is not False
        sign = "below" if low_is_bad else "above"
        return Question(
            f"{metric} {sign} {number(worse_than)}",
            lambda run: _metric(run, metric, worse_than, low_is_bad),
            noun="metric",
            name=metric,
            known=_measures,
        )
    if check:
        return Question(f"check {check} failed", lambda run: _check(run, check), "check", check, _checks)
    if step:
        return Question(f"step {step} failed", lambda run: _of_step(run, step), "step", step, _steps)
    return Question("the run failed", _status)


def _status(run: Run) -> Verdict:
    if run.status not in ("succeeded", "failed"):
        return Verdict(None)
    failed = next((s.name for s in run.steps if s.status == "failed"), "")
    return Verdict(run.status == "failed", step=failed)


def _of_step(run: Run, name: str) -> Verdict:
    parts = [s for s in run.steps if name in (s.name, base_name(s.name))]
    ended = [s for s in parts if s.status in ("succeeded", "cached", "failed")]
    if not ended:
        return Verdict(None)
    # Of several partitions one that failed speaks for all.
    found = next((s for s in ended if s.status == "failed"), ended[-1])
    return Verdict(found.status == "failed", step=found.name)


def _check(run: Run, name: str) -> Verdict:
    for step in run.steps:
        for value in _values(step):
            if isinstance(value, CheckResult) and value.check.name == name and value.status != "skipped":
                return Verdict(not value.ok or value.status == "failed", value.evidence.value, step.name)
    return Verdict(None)


def _metric(run: Run, name: str, limit: float, low_is_bad: bool) -> Verdict:
    for step in run.steps:
        for value in _values(step):
            evidence = value.evidence if isinstance(value, CheckResult) else value
            named = isinstance(value, CheckResult) and value.check.name == name
            if isinstance(evidence, Evidence) and (named or evidence.measure == name) and evidence.value is not None:
                bad = evidence.value < limit if low_is_bad else evidence.value > limit
                return Verdict(bad, evidence.value, step.name)
    return Verdict(None)


def _steps(run: Run) -> set[str]:
    return {name for step in run.steps for name in (step.name, base_name(step.name))}


def _checks(run: Run) -> set[str]:
    return {v.check.name for step in run.steps for v in _values(step) if isinstance(v, CheckResult)}


def _measures(run: Run) -> set[str]:
    values = [v for step in run.steps for v in _values(step)]
    return _checks(run) | {v.measure for v in values if isinstance(v, Evidence)}


def _values(step: StepRun) -> list[object]:
    found: list[object] = []
    for raw in step.outputs.values():
        value = read_value(raw)
        found += value if isinstance(value, list) else [value]
    return found


def unknown(question: Question, names: set[str]) -> NotFound:
    """Return the error for a name that no run has."""
    if question.noun == "check":
        return NotFound.of("check", question.name, names)
    if question.noun == "metric":
        return NotFound.of("metric", question.name, names)
    return NotFound.of("step", question.name, names)
