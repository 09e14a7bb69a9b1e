"""The largest difference of a metric between groups that share no row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from modelyard._kit.text import plural
from modelyard.checks.bootstrap import LEVEL
from modelyard.checks.estimate import FEWEST_ROWS, metric_for
from modelyard.checks.factors import Partition, partitions
from modelyard.checks.groups import GroupTables, GroupValue, group_entry
from modelyard.checks.predictions import read_predictions
from modelyard.checks.verdict import check_of, figures, holds, level_text, limit_of
from modelyard.records import Check, CheckResult, Evidence, Interval, Limit, Problem, Status

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["gap"]

# Groups named in one sentence.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two groups of one partition; the first has the higher value."""

    by: tuple[str, ...]
    high: str
    low: str
    high_value: float
    low_value: float
    bounds: tuple[float, float]

    @property
    def difference(self) -> float:
        return self.high_value - self.low_value


def gap(
    *, predictions: pl.LazyFrame | pl.DataFrame, problem: Problem, check: Check | Mapping[str, Any], seed: int = 0
) -> CheckResult:
    """Compare a metric between the groups of each named column, and of each pair of the columns.

    A group that too few rows tell of (`at_least_rows`, 30 if not given; for a share, rows that it is a share of) is
    listed and not compared. Where a column has fewer than two groups that can be compared, the check says
    `insufficient`, unless what could be compared fails already.

    The interval of the gap reaches from the lower bound of the two groups that are farthest apart to the highest upper
    bound of any two groups: a small group may be farther apart than it looks. With `with_confidence` that upper
    bound must hold the limit.

    Args:
        predictions: Table of predictions with the columns.
        problem: What was learned.
        check: The check; its parameters are `metric`, `across`, `at_most`, `at_least_rows`, `with_confidence` and
            `cuts` (where to cut number columns, by name).
        seed: Seed of the bootstrap.

    Raises:
        UserError: The metric does not fit the problem, or there is no limit.
        DataError: The predictions cannot be used, or lack a column.
    """
    claim = check_of(check)
    limit = limit_of(claim)
    metric = metric_for(claim.params["metric"], problem)
    across = [claim.params["across"]] if isinstance(claim.params["across"], str) else list(claim.params["across"])
    asked = claim.params.get("with_confidence")
    level = float(asked or LEVEL)
    fewest = int(claim.params.get("at_least_rows") or FEWEST_ROWS)
    predicted = read_predictions(predictions, problem, keep=across)
    parts = partitions(predicted.columns, across, cuts=claim.params.get("cuts"))
    measured = GroupTables(predicted, parts, seed=seed, level=level, fewest=fewest).measure(metric)

    pairs = [pair for part, values in zip(parts, measured, strict=True) for pair in _pairs(part, values, level)]
    worst = max(pairs, key=lambda pair: pair.difference, default=None)
    small = [
        part.label(g)
        for part, values in zip(parts, measured, strict=True)
        for g, one in enumerate(values)
        if one.lacking or one.value is None
    ]
    mute = [name for name in across if not any(pair.by == (name,) for pair in pairs)]
    bounds = _interval(worst, pairs, level) if worst else None
    status, reason = _judge(metric.name, worst, bounds, limit, surely=asked is not None, mute=mute)
    if small:
        named = ", ".join(small[:_NAMED]) + (f" and {len(small) - _NAMED} more" if len(small) > _NAMED else "")
        reason += f"; too few rows to compare {plural(len(small), 'group')}: {named}"
    entries = [
        group_entry(predicted, part, g, {metric.name: one})
        for part, values in zip(parts, measured, strict=True)
        for g, one in enumerate(values)
    ]
    return CheckResult(
        check=claim,
        status=status,
        reason=reason,
        limit=limit,
        evidence=Evidence(
            measure=f"{metric.name}_gap",
            value=worst.difference if worst else None,
            interval=bounds,
            n=len(predicted),
            seed=seed,
            method=f"largest difference of {metric.name} between groups of {', '.join(across)}",
            details={
                "metric": metric.name,
                "across": across,
                "level": level,
                "fewest": fewest,
                "highest": {"label": worst.high, "value": worst.high_value} if worst else None,
                "lowest": {"label": worst.low, "value": worst.low_value} if worst else None,
                "insufficient": small,
                "by": _by(parts, pairs),
                "groups": entries,
            },
        ),
    )


def _pairs(part: Partition, values: list[GroupValue], level: float) -> list[_Pair]:
    import numpy as np

    found = []
    able = [g for g, one in enumerate(values) if one.value is not None and not one.lacking]
    for a, b in combinations(able, 2):
        high, low = (a, b) if (values[a].value or 0.0) >= (values[b].value or 0.0) else (b, a)
        top, bottom = values[high], values[low]
        difference = (top.value or 0.0) - (bottom.value or 0.0)
        bounds = (difference, difference)
        if top.replicates is not None and bottom.replicates is not None:
            count = min(len(top.replicates), len(bottom.replicates))
            apart = top.replicates[:count] - bottom.replicates[:count]
            apart = apart[np.isfinite(apart)]
            if len(apart):
                ends = np.quantile(apart, [(1 - level) / 2, (1 + level) / 2]).tolist()
                bounds = (ends[0], ends[1])
        found.append(_Pair(part.by, part.label(high), part.label(low), top.value or 0.0, bottom.value or 0.0, bounds))
    return found


def _interval(worst: _Pair, pairs: list[_Pair], level: float) -> Interval:
    high = max(pair.bounds[1] for pair in pairs)
    method = f"bootstrap of the difference; the upper bound is the highest of {plural(len(pairs), 'pair')} of groups"
    return Interval(low=max(0.0, worst.bounds[0]), high=max(high, worst.difference), level=level, method=method)


def _judge(
    name: str, worst: _Pair | None, bounds: Interval | None, limit: Limit, *, surely: bool, mute: list[str]
) -> tuple[Status, str]:
    if worst is None or bounds is None:
        return "insufficient", f"no two groups have rows enough to compare {name}"
    size, bar, high, top, bottom = figures(
        worst.difference, limit.value, bounds.high, worst.high_value, worst.low_value
    )
    apart = f"{name} differs by {size} ({level_text(bounds.level)} up to {high})"
    between = f"{worst.high} {top}, {worst.low} {bottom}"
    if not holds(worst.difference, limit):
        return "failed", f"{apart}, above {bar}: {between}"
    if surely and not holds(bounds.high, limit):
        sure = f"with {level_text(bounds.level)} confidence it may be as high as {high}"
        return "failed", f"{name} differs by {size}, which is at most {bar}, but {sure}: {between}"
    if mute:
        columns = " and ".join(f"`{column}`" for column in mute)
        return "insufficient", f"{columns} has fewer than two groups with rows enough to compare {name}"
    return "passed", f"{apart}, at most {bar}: {between}"


def _by(parts: list[Partition], pairs: list[_Pair]) -> list[dict[str, Any]]:
    """Return the largest difference within each column and each pair of columns."""
    found: list[dict[str, Any]] = []
    for part in parts:
        worst = max((p for p in pairs if p.by == part.by), key=lambda p: p.difference, default=None)
        found.append(
            {
                "by": list(part.by),
                "value": worst.difference if worst else None,
                "low": max(0.0, worst.bounds[0]) if worst else None,
                "high": worst.bounds[1] if worst else None,
                "highest": worst.high if worst else "",
                "lowest": worst.low if worst else "",
            }
        )
    return found
