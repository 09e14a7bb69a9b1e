"""Compare a window of requests with what the model was made from, and with the outcomes that are known by now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.text import plural
from modelyard.checks.drift import Limits, drift
from modelyard.checks.estimate import FEWEST_ROWS, estimate, evidence, metric_for
from modelyard.checks.limit import judge
from modelyard.checks.predictions import Predicted, predicted_from
from modelyard.checks.verdict import figures, limit_of, spread
from modelyard.inference.encode import as_text
from modelyard.monitoring.section import Monitor
from modelyard.monitoring.window import Window
from modelyard.records import Check, CheckResult, Evidence, Limit, Problem, Signature, Status
from modelyard.store.requests import is_held

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FEWEST", "live", "watch"]

# Of fewer requests not even a large shift can be told from chance.
FEWEST = 50


def watch(
    window: Window,
    profile: Mapping[str, Any],
    signature: Signature,
    settings: Monitor | Mapping[str, Any],
    seed: int = 0,
) -> list[CheckResult]:
    """Return what a window of requests shows.

    Drift comes first: `psi.COLUMN` and `ks.COLUMN`, `missing`, `unseen`, and `psi.prediction`; with fewer than 50
    requests there is one result instead, `window`, that says how many more are needed. `live.METRIC` follows once
    outcomes are known. No result blocks anything: an alarm is one whose status is `failed`. An answer that a guard held
    back is none: it counts among neither the predictions nor the outcomes; the model's probabilities of it do, where
    they were logged.

    Args:
        window: Requests that one model answered.
        profile: What that model was made from, `Bundle.profile`.
        signature: What it takes and answers.
        settings: The `monitor` section, or the same as plain JSON. As plain JSON it may also have `rows` (instead of
            50), `confidence` (that an alarm is not chance, 0.99), `drift.missing` and `drift.unseen`, and
            `metric`: `{"at_least": 0.9}` or `{"at_most": ...}` for the live metric.
        seed: Seed of the interval of the live metric.
    """
    plain = msgspec.to_builtins(settings) if isinstance(settings, Monitor) else dict(settings)
    results = _drift(window, profile, signature, plain)
    results += live(window, signature.problem, limit=plain.get("metric"), seed=seed)
    if not window.model:
        return results
    stamped = (msgspec.structs.replace(r.evidence, model=window.model) for r in results)
    return [msgspec.structs.replace(r, evidence=e) for r, e in zip(results, stamped, strict=True)]


def _drift(
    window: Window, profile: Mapping[str, Any], signature: Signature, settings: Mapping[str, Any]
) -> list[CheckResult]:
    fewest = int(settings.get("rows", FEWEST))
    check = Check(name="window", type="drift", blocking=False)
    if window.rows < fewest:
        tell = "tells" if window.rows == 1 else "tell"
        reason = f"{plural(window.rows, 'request')} {tell} too little about drift; it needs {fewest:,}, "
        reason += f"{fewest - window.rows:,} more"
        return [_unknown(check, "rows", reason, window.rows, Limit(op="at_least", value=fewest))]
    if not profile.get("features"):
        reason = "the model carries no profile of its training data to compare with"
        return [_unknown(check, "rows", reason, window.rows, None)]
    given = settings.get("drift") or {}
    limits = Limits(**{k: given[k] for k in ("psi", "ks", "missing", "unseen") if given.get(k) is not None})
    if settings.get("confidence"):
        limits = Limits(limits.psi, limits.ks, limits.missing, limits.unseen, float(settings["confidence"]))
    # Every request has every column; one that none has is left out of the log (`deploy.requests.redact`).
    columns = {f.name: window.inputs[f.name] for f in signature.features if f.name in window.inputs}
    scores, labels = _answers(window.outputs, signature.problem)
    return drift(profile, columns, scores=scores, labels=labels, limits=limits)


def _unknown(check: Check, measure: str, reason: str, rows: int, limit: Limit | None) -> CheckResult:
    found = Evidence(measure=measure, value=float(rows), n=rows)
    return CheckResult(check=check, status="insufficient", reason=reason, limit=limit, evidence=found)


def _answers(outputs: list[dict[str, Any]], problem: Problem) -> tuple[list[Any], list[Any] | None]:
    """Return one score and one class a row that was answered, as the profile has them."""
    labels = [output.get("prediction") for output in outputs if not is_held(output)]
    if problem.task == "regression":
        return labels, None
    given = [output.get("probabilities") or {} for output in outputs]
    if problem.task == "binary":
        return [row.get(problem.positive) for row in given], labels
    return [max(row.values(), default=None) for row in given], labels


def live(
    window: Window, problem: Problem, *, limit: Mapping[str, Any] | None = None, seed: int = 0
) -> list[CheckResult]:
    """Return the metric of the model on the requests whose outcome is known; nothing if none is.

    Args:
        window: Requests.
        problem: What was learned; its metric is measured.
        limit: `{"at_least": ...}` or `{"at_most": ...}`, and `with_confidence`; without it the metric is reported.
        seed: Seed of the interval.
    """
    known = [at for at, truth in enumerate(window.truths) if truth is not None]
    if not known or not problem.metric:
        return []
    metric = metric_for(problem.metric, problem)
    check = Check(
        name=f"live.{metric.name}", type="metric", params={"metric": metric.name, **(limit or {})}, blocking=False
    )
    held = sum(is_held(window.outputs[at]) for at in known)
    predicted, strange = _known(window, [at for at in known if not is_held(window.outputs[at])], problem)
    measured = estimate(metric, predicted, seed=seed, fewest=FEWEST_ROWS)
    rows = plural(len(predicted), "request") + " with a known outcome"
    if strange:
        rows += f" ({strange:,} more are none of the classes)"
    if held:
        rows += f" ({held:,} more were held back)"
    details = {"known": len(predicted), "of": window.rows, "strange": strange, "held": held}
    found = evidence(measured, seed=seed, details=details)
    bar = limit_of(check) if limit else None
    status: Status = "passed"
    if measured.lacking or measured.value is None:
        status, reason = "insufficient", measured.lacking
    elif bar is not None:
        status, reason = judge(measured, bar, surely=bool(limit and limit.get("with_confidence")))
    else:
        reason = f"{metric.name} {figures(measured.value)[0]}{spread(measured.interval)}, which has no limit"
    return [CheckResult(check=check, status=status, reason=f"{reason}; on {rows}", limit=bar, evidence=found)]


def _known(window: Window, known: list[int], problem: Problem) -> tuple[Predicted, int]:
    """Return the rows with a known outcome as predictions, and how many of these are of no known class."""
    rows = [(window.truths[at], window.outputs[at]) for at in known]
    good = [(truth, output) for truth, output in rows if _usable(truth, output, problem)]
    truths = [truth for truth, _ in good]
    answers = [output.get("prediction") for _, output in good]
    given = [output.get("probabilities") or {} for _, output in good]
    return predicted_from(problem, truths, answers, given), len(rows) - len(good)


def _usable(truth: Any, output: Mapping[str, Any], problem: Problem) -> bool:
    if problem.task != "regression":
        return as_text(truth) in problem.classes and as_text(output["prediction"]) in problem.classes
    try:
        return float(truth) - float(truth) == 0
    except (TypeError, ValueError):
        return False
