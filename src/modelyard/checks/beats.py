"""Whether a new model is as good as the one that answers now, and better than knowing nothing.

What `beats` means, because a run stops on it:

- **baseline**: the model must be better than always answering the most frequent class (for a score: the shares of the
  classes; for numbers: the mean), by at least `margin`. Being equal to it is not enough.
- **champion**: the model must not be worse, on the same test rows. An equal model passes, so training again on the same
  data never stops. A model that is worse by however little does not pass: it would take the champion's place
  unseen, and a hundred such steps make a bad model. Where the difference is within chance the reason says so, and names
  the `margin` that would let the model pass: replacing a champion by its equal is a person's decision, made once, in
  the file. Where there is no champion yet, nothing is compared with it. A champion whose bundle was deleted is another
  matter: whether the model is worse than it nobody can tell, so the evidence is insufficient. Only where the model has
  its place already, and the bundle of the one before it is gone, nothing rests on it.
- `margin` is in units of the metric. A positive one demands that much gain; a negative one allows that much loss
  against the champion (never against the baseline).
- `with_confidence`: the lower bound of the two-sided interval of the difference must reach the margin, not only the
  difference itself. Both models are measured on the same redrawn rows, so that what is hard for both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import DataError
from modelyard.checks.bootstrap import LEVEL, interval, poisson_replicates, replicates_for
from modelyard.checks.estimate import FEWEST_ROWS, metric_for, shortage
from modelyard.checks.metrics import Metric
from modelyard.checks.predictions import Predicted, class_codes, read_predictions
from modelyard.checks.verdict import check_of, figures, finite, level_text
from modelyard.records import Check, CheckResult, Evidence, Gone, Interval, Limit, Problem, Status

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]
    Frame = pl.LazyFrame | pl.DataFrame

__all__ = ["Part", "baseline_of", "beats"]

_ROUNDING = 1e-12


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison.

    Attributes:
        against: `baseline` or `champion`.
        status: What came of it.
        reason: Part of a sentence.
        value: Metric of the new model.
        other: Metric of the other.
        difference: How much better the new model is; positive is better, whatever the direction of the metric.
        needed: How much better it had to be.
        interval: Interval of the difference.
    """

    against: str
    status: Status
    reason: str
    value: float | None = None
    other: float | None = None
    difference: float | None = None
    needed: float = 0.0
    interval: Interval | None = None


def beats(
    *,
    predictions: Frame,
    champion_predictions: Frame | Gone | None,
    problem: Problem,
    check: Check | Mapping[str, Any],
    train: Frame | None = None,
    seed: int = 0,
) -> CheckResult:
    """Compare a model with the champion and with a baseline, see the top of this module for what counts.

    Args:
        predictions: Predictions of the new model.
        champion_predictions: Predictions of the champion for the same rows in the same order; none if there is none;
            that it is gone if its bundle was deleted.
        problem: What was learned.
        check: The check; its parameters are `champion`, `baseline`, `margin`, `with_confidence` and `metric`
            (the problem's own if not given).
        train: Training rows, for the baseline; without them the test rows tell what is frequent.
        seed: Seed of the bootstrap.

    Raises:
        UserError: The metric does not fit the problem.
        DataError: Tables cannot be used, or the champion answered other rows (`predictions-rows`).
    """
    claim = check_of(check)
    metric = metric_for(claim.params.get("metric") or problem.metric, problem)
    predicted = read_predictions(predictions, problem)
    parts, gone = [], ""
    if claim.params.get("baseline", True):
        guess = baseline_of(metric, predicted, _target_of(train, predicted, problem))
        parts.append(_compare("baseline", metric, predicted, guess, claim, seed))
    if claim.params.get("champion", True):
        parts.append(_champion(metric, predicted, champion_predictions, claim, seed))
        if isinstance(champion_predictions, Gone):
            gone = champion_predictions.model.digest
    return _result(claim, metric, predicted, parts, seed, gone)


def _champion(metric: Metric, predicted: Predicted, table: Frame | Gone | None, claim: Check, seed: int) -> Part:
    if table is None:
        return Part(against="champion", status="skipped", reason="there is no champion yet")
    if isinstance(table, Gone):
        return _without(table, claim)
    import numpy as np

    other = read_predictions(table, predicted.problem)
    if len(other) != len(predicted) or not np.array_equal(other.truth, predicted.truth):
        raise DataError(
            "predictions-rows",
            f"the champion answered other rows than the new model ({len(other):,} and {len(predicted):,})",
            hint="give both models the same test table",
        )
    return _compare("champion", metric, predicted, other.guess(metric), claim, seed)


def _without(gone: Gone, claim: Check) -> Part:
    """Say what it means that the bundle of the model to compare with was deleted."""
    digits = short(gone.model.digest)
    if gone.replaced:
        reason = (
            f"the model is the champion already, and the bundle of the one before it, {digits}, is gone from the store"
        )
        return Part(against="champion", status="skipped", reason=reason)
    alone = "champion: false" if claim.params.get("baseline", True) else "champion: false, baseline: true"
    reason = (
        f"the bundle of the champion {digits} is gone from the store, so nothing could be compared with it: put the "
        f"bundle back, or set `beats: {{{alone}}}` for the one run that replaces it"
    )
    return Part(against="champion", status="insufficient", reason=reason)


def _target_of(train: Frame | None, predicted: Predicted, problem: Problem) -> Array:
    """Return the target of the training rows in the form of `Predicted.truth`; that of the test rows without any."""
    if train is None:
        return predicted.truth
    import polars as pl

    column = train.lazy().select(problem.target).collect()[problem.target].drop_nulls()
    if problem.task == "regression":
        return column.cast(pl.Float64).to_numpy()
    return class_codes(column, predicted.classes)


def baseline_of(metric: Metric, predicted: Predicted, target: Array) -> Array:
    """Return what a model that knows nothing but the training target answers for each row of `predicted`."""
    import numpy as np

    n = len(predicted)
    if predicted.problem.task == "regression":
        return np.full(n, target.mean() if len(target) else np.nan)
    seen = np.bincount(target, minlength=len(predicted.classes))
    if metric.needs == "labels":
        return np.full(n, int(seen.argmax()))
    shares = seen / max(1, seen.sum())
    if predicted.problem.task == "binary":
        return np.full(n, shares[1])
    return np.tile(shares, (n, 1))


def _compare(against: str, metric: Metric, predicted: Predicted, guess: Array, claim: Check, seed: int) -> Part:
    n, classes = len(predicted), len(predicted.classes)
    lacking = shortage(metric, predicted, n, FEWEST_ROWS)
    if lacking:
        return Part(against=against, status="insufficient", reason=f"against the {against}: {lacking}")
    sign = 1.0 if metric.higher_is_better else -1.0
    ours = metric.weighted(predicted.truth, predicted.guess(metric), classes)
    theirs = metric.weighted(predicted.truth, guess, classes)
    value = metric(predicted.truth, predicted.guess(metric), classes)
    other = metric(predicted.truth, guess, classes)
    if not math.isfinite(value - other):
        reason = f"against the {against}: {metric.name} is undefined on these rows"
        return Part(against=against, status="insufficient", reason=reason)
    level = float(claim.params.get("with_confidence") or LEVEL)
    drawn = poisson_replicates(
        lambda w: sign * (ours(w) - theirs(w)),
        n,
        seed=seed,
        count=replicates_for(n, cost=2 * (classes if classes > 2 else 1)),
    )
    margin = float(claim.params.get("margin") or 0.0)
    part = Part(
        against=against,
        status="passed",
        reason="",
        value=value,
        other=other,
        difference=sign * (value - other),
        needed=max(0.0, margin) if against == "baseline" else margin,
        interval=interval(drawn, level=level, method="paired Poisson bootstrap"),
    )
    status, reason = _judge(metric, part, surely=claim.params.get("with_confidence") is not None)
    return msgspec.structs.replace(part, status=status, reason=reason)


def _judge(metric: Metric, part: Part, *, surely: bool) -> tuple[Status, str]:
    """Return status and reason of one comparison."""
    difference, spread = part.difference or 0.0, part.interval
    ours, theirs = figures(part.value or 0.0, part.other or 0.0)
    # Equality is enough against the champion, and nothing against the baseline.
    slack = -_ROUNDING if part.against == "champion" else (_ROUNDING if part.needed == 0 else -_ROUNDING)
    said = f"{metric.name} {ours} against {theirs} of the {part.against}"
    gained = _change(difference, spread)
    if difference - part.needed < slack:
        reason = f"{said}: {gained}"
        if part.needed:
            reason += f", and {_signed(part.needed)} is needed"
        if part.against == "champion" and part.needed <= 0 and spread is not None and spread.high >= part.needed:
            reason += (
                ", which may be chance; the champion stays, unless `margin: "
                f"{_allowing(difference)}` is set to accept a model this close"
            )
        return "failed", reason
    if surely:
        if spread is None:
            return "insufficient", f"{said}: there is no interval of the difference"
        if spread.low - part.needed < slack:
            sure = f"with {level_text(spread.level)} confidence it is at least {_signed(spread.low)}"
            return "failed", f"{said}: {gained}, but {sure}, and {_signed(part.needed)} is needed"
    return "passed", f"{said}: {gained}"


def _allowing(difference: float) -> str:
    """Return the margin, rounded down to two digits, with which a loss (a negative difference) would pass."""
    unit = 10.0 ** (math.floor(math.log10(-difference)) - 1)
    return f"{math.floor(difference / unit) * unit:.2g}"


def _change(difference: float, spread: Interval | None) -> str:
    if abs(difference) <= _ROUNDING:
        return "equal"
    word = "better" if difference > 0 else "worse"
    size = figures(abs(difference))[0]
    if spread is None:
        return f"{size} {word}"
    return f"{size} {word} ({level_text(spread.level)} from {_signed(spread.low)} to {_signed(spread.high)})"


def _signed(value: float) -> str:
    text = figures(abs(value))[0]
    return f"{'-' if value < -_ROUNDING else '+'}{text}"


def _result(claim: Check, metric: Metric, predicted: Predicted, parts: list[Part], seed: int, gone: str) -> CheckResult:
    status: Status = "skipped"
    for worst in ("failed", "insufficient", "passed"):
        if any(part.status == worst for part in parts):
            status = worst
            break
    compared = [part for part in parts if part.difference is not None]
    closest = min(compared, key=lambda part: (part.difference or 0.0) - part.needed, default=None)
    # What failed is read first.
    ordered = sorted(parts, key=lambda part: ("failed", "insufficient", "passed", "skipped").index(part.status))
    return CheckResult(
        check=claim,
        status=status,
        reason="; ".join(part.reason for part in ordered) or "nothing to compare with was asked for",
        limit=Limit(op="at_least", value=closest.needed) if closest else None,
        evidence=Evidence(
            measure=f"{metric.name}_difference",
            value=finite(closest.difference or 0.0) if closest else None,
            interval=closest.interval if closest else None,
            n=len(predicted),
            seed=seed if compared else None,
            method="difference on the same test rows; positive is better",
            details={
                "metric": metric.name,
                "parts": [msgspec.to_builtins(part) for part in parts],
                **({"gone": gone} if gone else {}),
            },
        ),
    )
