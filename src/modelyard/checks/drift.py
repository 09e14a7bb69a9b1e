"""How far new rows are from a profile, and whether that is more than chance.

An alarm needs two things: the distance is past its limit, and so large a distance is unlikely without any change.
On 100 rows the population stability index (PSI) of an unchanged column is about 0.09, and often past the usual 0.1;
on a million rows a change that nobody need care about is certain. The chance of an alarm without a change is held for
all columns and measures of one comparison together (Holm).

- **psi**: sum over ten bins of equal reference share (or the categories) of (new - old) * log(new / old). Its chance is
  that of the chi-square statistic of the same bins.
- **ks**: largest difference of the shares below a value (Kolmogorov-Smirnov), at the knots of the profile.
- **missing**: how much larger the share of missing values is.
- **unseen**: share of categories that the model never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from modelyard.checks.profile import floats, texts
from modelyard.checks.significance import chi_square_tail, holm, kolmogorov_tail, shares_differ
from modelyard.checks.verdict import figures, holds
from modelyard.records import Check, CheckResult, Evidence, Limit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["CONFIDENCE", "Limits", "Shift", "drift", "judge", "psi_by_chance", "shifts"]

# One comparison in a hundred raises an alarm although nothing changed.
CONFIDENCE = 0.99
_BINS = 10
# From so many rows on, counting buckets is cheaper than looking each row up.
_MANY = 50_000
# The chi-square approximation wants this many expected rows in each bin.
_EXPECTED = 5
_PREDICTION = "prediction"


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest distances that pass.

    Attributes:
        psi: Of the population stability index.
        ks: Of the Kolmogorov-Smirnov distance; none: it is reported and not limited.
        missing: Of the increase of the share of missing values.
        unseen: Of the share of unseen categories.
        confidence: How surely it must not be chance, over everything that is limited.
    """

    psi: float = 0.2
    ks: float | None = None
    missing: float = 0.05
    unseen: float = 0.01
    confidence: float = CONFIDENCE


@dataclass(frozen=True, slots=True)
class Shift:
    """One measured distance.

    Attributes:
        measure: `psi`, `ks`, `missing` or `unseen`.
        feature: The column, `prediction` for the score or `prediction.label`.
        value: The distance.
        n: New rows.
        p: Chance of so large a distance without any change.
        limit: Largest that passes; none if it is only reported.
        details: Bins and counts.
    """

    measure: str
    feature: str
    value: float
    n: int
    p: float
    limit: float | None
    details: dict[str, Any] = field(default_factory=dict)


def drift(
    profile: Mapping[str, Any],
    columns: Mapping[str, Any],
    *,
    scores: Any = None,
    labels: Any = None,
    limits: Limits = Limits(),
) -> list[CheckResult]:
    """Compare new rows with a profile.

    Args:
        profile: The reference, see `checks.profile`.
        columns: Values by column name; columns that the profile has and that are not given are left out.
        scores: One score a row, if there are predictions.
        labels: One predicted class a row, if there are classes.
        limits: Largest distances that pass.

    Returns:
        For each column and the predictions one result a measure; `missing` and `unseen` are one result each, for the
        column that changed most. Those past their limit come first, then by distance.
    """
    return judge(shifts(profile, columns, scores=scores, labels=labels, limits=limits), limits)


def shifts(
    profile: Mapping[str, Any],
    columns: Mapping[str, Any],
    *,
    scores: Any = None,
    labels: Any = None,
    limits: Limits = Limits(),
) -> list[Shift]:
    """Measure every distance; see `drift`."""
    pairs = [(name, entry, columns[name]) for name, entry in profile["features"].items() if name in columns]
    answers = profile.get("predictions", {})
    if scores is not None and "score" in answers:
        pairs.append((_PREDICTION, answers["score"], scores))
    if labels is not None and "label" in answers:
        pairs.append((f"{_PREDICTION}.label", answers["label"], labels))
    found: list[Shift] = []
    for name, entry, values in pairs:
        found += (_number_shifts if entry["type"] == "number" else _category_shifts)(name, entry, values, limits)
    return found


def judge(found: Sequence[Shift], limits: Limits = Limits()) -> list[CheckResult]:
    """Turn distances into results, with the chance adjusted for how many of them are limited."""
    limited = [shift for shift in found if shift.limit is not None]
    reported = [shift for shift in found if shift.limit is None]
    adjusted = {id(s): p for some in (limited, reported) for s, p in zip(some, holm([s.p for s in some]), strict=True)}
    judged = [(shift, _result(shift, adjusted[id(shift)], limits.confidence)) for shift in found]
    kept = [result for shift, result in judged if shift.measure in ("psi", "ks")]
    for measure in ("missing", "unseen"):
        some = [(shift, result) for shift, result in judged if shift.measure == measure]
        if some:
            kept.append(_worst(measure, some))
    return sorted(kept, key=lambda r: (r.status != "failed", -(r.evidence.value or 0.0), r.check.name))


def _worst(measure: str, some: Sequence[tuple[Shift, CheckResult]]) -> CheckResult:
    """Return one result for a measure of many columns: that of the worst, with the values of all."""
    import msgspec

    shift, result = max(some, key=lambda pair: (pair[1].status == "failed", pair[0].value))
    every = {one.feature: one.value for one, _ in some}
    evidence = msgspec.structs.replace(result.evidence, details={**result.evidence.details, "features": every})
    check = msgspec.structs.replace(result.check, name=measure, params={"measure": measure})
    reason = result.reason
    failed = [one.feature for one, r in some if r.status == "failed" and one is not shift]
    if failed:
        reason += f"; so do {', '.join(failed[:4])}" + (f" and {len(failed) - 4} more" if len(failed) > 4 else "")
    if not shift.value:
        reason = (
            f"no value is {measure} in {len(some)} columns"
            if measure == "unseen"
            else (f"no more values are missing than in training, in {len(some)} columns")
        )
    return msgspec.structs.replace(result, check=check, evidence=evidence, reason=reason)


_SAYS = {
    "psi": "psi of {feature} is {value}",
    "ks": "the distribution of {feature} is {value} apart",
    "missing": "the share of missing values of {feature} is larger by {value}",
    "unseen": "a share of {value} of {feature} was never seen in training",
}


def _result(shift: Shift, p: float, confidence: float) -> CheckResult:
    value, bar = figures(shift.value, shift.limit or 0.0)
    reason = f"{_SAYS[shift.measure].format(feature=shift.feature, value=value)} on {shift.n:,} rows"
    limit = None if shift.limit is None else Limit(op="at_most", value=shift.limit)
    failed = False
    if limit is None:
        reason += f", which is reported and not limited ({_chance(p)})"
    elif holds(shift.value, limit):
        reason += f", at most {bar}"
    elif p >= 1 - confidence:
        reason += f", above {bar}, but with so few rows that may be chance ({_chance(p)})"
    else:
        failed = True
        reason += f", above {bar} ({_chance(p)})"
    return CheckResult(
        check=Check(
            name=f"{shift.measure}.{shift.feature}",
            type="drift",
            params={"measure": shift.measure, "feature": shift.feature},
            blocking=False,
        ),
        status="failed" if failed else "passed",
        reason=reason,
        limit=limit,
        evidence=Evidence(
            measure=shift.measure,
            value=shift.value,
            n=shift.n,
            method=_METHODS[shift.measure],
            details={"feature": shift.feature, "p": shift.p, "p_adjusted": p, **shift.details},
        ),
    )


_METHODS = {
    "psi": "population stability index against the profile of training; chance by chi-square, Holm over all measures",
    "ks": "Kolmogorov-Smirnov distance at the knots of the profile of training; chance adjusted by Holm",
    "missing": "difference of the shares of missing values; chance by Fisher's exact or the score test, Holm",
    "unseen": "share of categories not in training; chance against the share that was seen once there, Holm",
}


def _chance(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p {p:.2g}"


def _number_shifts(name: str, entry: Mapping[str, Any], values: Any, limits: Limits) -> list[Shift]:
    import numpy as np

    every = floats(values)
    known = every[~np.isnan(every)]
    found = [] if name.startswith(_PREDICTION) else [_missing(name, entry, len(every) - len(known), len(every), limits)]
    n, m = len(known), int(entry["n"])
    if not n or not m:
        return found
    knots = np.asarray(entry["knots"], np.float32)
    below = _below(knots, known)
    reference = np.asarray(entry["below"], np.int64)
    distance = float(np.abs(below / n - reference / m).max())
    details = {"reference_n": m}
    found.append(Shift("ks", name, distance, n, kolmogorov_tail(distance, n, m), limits.ks, details))
    old, new, bins = _bins(knots, reference, below, known)
    found.append(_psi(name, old, new, bins, limits))
    return found


def _below(knots: Array, known: Array) -> Array:
    """Return how many of the values (float32) are at or below each knot."""
    import numpy as np

    count = len(knots) + 1
    if len(known) < _MANY:
        return np.cumsum(np.bincount(np.searchsorted(knots, known, side="left"), minlength=count))[:-1]
    # The upper half of a float's bits orders it as the float itself, so most values are placed by counting buckets;
    # only those that share a bucket with a knot are looked up. A third of the time, and the same counts.
    bucket, at = _buckets(known), _buckets(knots)
    shared = np.zeros(1 << 16, bool)
    shared[at] = True
    filled = np.bincount(bucket, minlength=1 << 16)
    filled[shared] = 0
    whole = np.bincount(np.searchsorted(at, np.arange(1 << 16), side="left"), filled, count).astype(np.int64)
    single = np.bincount(np.searchsorted(knots, known[shared[bucket]], side="left"), minlength=count)
    return np.cumsum(whole + single)[:-1]


def _buckets(values: Array) -> Array:
    import numpy as np

    bits = values.view(np.int32)
    return (((bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> 16) + (1 << 15)).astype(np.uint16)


def _bins(knots: Array, reference: Array, below: Array, known: Array) -> tuple[Array, Array, list[str]]:
    """Cut at knots into bins of about equal reference share, as many as the new rows can fill."""
    import numpy as np

    m, n = int(reference[-1]), len(known)
    count = max(2, min(_BINS, n // _EXPECTED))
    if len(knots) == 1:
        same = int((known == knots[0]).sum())
        return np.array([m, 0]), np.array([same, len(known) - same]), [f"= {float(knots[0]):g}", "other"]
    # Behind the last knot, the largest value, there is nothing to cut off.
    ranks = np.arange(1, count) * m / count
    at = np.unique(np.minimum(np.searchsorted(reference, ranks, side="left"), len(knots) - 2))
    old = np.diff(np.concatenate(([0], reference[at], [m])))
    new = np.diff(np.concatenate(([0], below[at], [n])))
    edges = [f"{float(knots[i]):g}" for i in at]
    names = [f"≤ {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges)), f"> {edges[-1]}"]
    return old, new, names


def _category_shifts(name: str, entry: Mapping[str, Any], values: Any, limits: Limits) -> list[Shift]:
    import numpy as np

    counted = texts(values)
    missing, every = counted.pop("", 0), counted.total()
    n, m = every, int(entry["n"])
    found = [] if name.startswith(_PREDICTION) else [_missing(name, entry, missing, every + missing, limits)]
    if not n or not m:
        return found
    known: dict[str, int] = entry["counts"]
    strange = {text: count for text, count in counted.items() if text not in known}
    unseen = sum(strange.values())
    # Where categories were too many to be listed, one that is not listed may have been seen.
    if not entry["other"]:
        p = shares_differ(unseen, n, int(entry["once"]), m) if unseen / n > entry["once"] / m else 1.0
        examples = sorted(strange, key=lambda text: (-strange[text], text))[:5]
        details = {"reference_n": m, "examples": examples}
        found.append(Shift("unseen", name, unseen / n, n, p, limits.unseen, details))
    # Rare categories are one bin, so that each bin has rows enough to be expected.
    frequent = [text for text, count in known.items() if count * n / m >= _EXPECTED]
    old = [known[text] for text in frequent]
    new = [counted.get(text, 0) for text in frequent]
    old, new = [*old, m - sum(old)], [*new, n - sum(new)]
    bins = [*frequent, "all others"]
    if not old[-1] and not new[-1]:
        old, new, bins = old[:-1], new[:-1], bins[:-1]
    found.append(_psi(name, np.array(old), np.array(new), bins, limits))
    return found


def _missing(name: str, entry: Mapping[str, Any], missing: int, every: int, limits: Limits) -> Shift:
    before = int(entry["n"]) + int(entry["missing"])
    more = (missing / every if every else 0.0) - (entry["missing"] / before if before else 0.0)
    p = shares_differ(missing, every, int(entry["missing"]), before) if more > 0 else 1.0
    return Shift("missing", name, max(0.0, more), every, p, limits.missing, {"reference_n": before, "missing": missing})


def _psi(name: str, old: Array, new: Array, bins: Sequence[str], limits: Limits) -> Shift:
    import numpy as np

    m, n, count = int(old.sum()), int(new.sum()), len(old)
    # Half a row in each bin: a bin that happens to be empty is no infinite distance.
    p, q = (old + 0.5) / (m + 0.5 * count), (new + 0.5) / (n + 0.5 * count)
    value = float(np.sum((q - p) * np.log(q / p)))
    details = {
        "reference_n": m,
        "by_chance": psi_by_chance(count, n, m),
        "bins": list(bins),
        "reference": [float(f"{x:.6g}") for x in (old / m).tolist()],
        "window": [float(f"{x:.6g}") for x in (new / n).tolist()],
    }
    return Shift("psi", name, value, n, _homogeneous(old, new), limits.psi, details)


def psi_by_chance(bins: int, n: int, m: int) -> float:
    """Return the PSI that is to be expected without any change: (bins - 1) * (1/n + 1/m).

    >>> round(psi_by_chance(10, 100, 40_000), 4)
    0.0902
    """
    return (bins - 1) * (1 / n + 1 / m)


def _homogeneous(old: Array, new: Array) -> float:
    """Return the chance of bins so different without a change (Pearson's chi-square of two samples)."""
    m, n = int(old.sum()), int(new.sum())
    if len(old) == 2:
        return shares_differ(int(new[0]), n, int(old[0]), m)
    expected = (old + new) / (m + n)
    there = expected > 0
    chi = sum((((x - s * expected) ** 2)[there] / (s * expected)[there]).sum() for x, s in ((old, m), (new, n)))
    return chi_square_tail(float(chi), max(1, int(there.sum()) - 1))
