"""Error rates by group: of each column and each pair of columns, with intervals, and with a word where rows are few.

The rates are those of the model card paper (Mitchell et al. 2019): false positives and negatives of those who are
negative and positive, false discoveries and omissions of those who are called positive and negative. All groups are
drawn anew together from one table of counts, so the cost does not depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelyard.checks.bootstrap import (
    LEVEL,
    counts_replicates,
    interval,
    poisson_replicates,
    replicates_for,
    wilson_interval,
)
from modelyard.checks.estimate import FEWEST_ROWS, MULTINOMIAL, POISSON, shortage
from modelyard.checks.factors import Partition, partitions
from modelyard.checks.metrics import METRICS, Metric
from modelyard.checks.predictions import Predicted, read_predictions
from modelyard.checks.significance import holm, shares_differ
from modelyard.checks.verdict import finite
from modelyard.inference.decode import THRESHOLD
from modelyard.records import Evidence, Interval, Problem, Task

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["RATES", "GroupTables", "GroupValue", "group_entry", "rates"]

RATES: dict[Task, tuple[str, ...]] = {
    "binary": ("false_positive_rate", "false_negative_rate", "false_discovery_rate", "false_omission_rate"),
    "multiclass": ("accuracy",),
    "regression": ("mae",),
}
# A bootstrap of so few rows, or of so few rows of one kind, is narrower than the truth.
_SMALL = 100
_FEW_OF_A_KIND = 10


@dataclass(frozen=True)
class GroupValue:
    """A metric in one group.

    Attributes:
        value: Its value; none where it is undefined.
        n: Rows it rests on; for a share, the rows it is a share of.
        interval: Its interval.
        lacking: Why there are too few rows to compare the group; empty if there are enough.
        replicates: The value in each replicate, for differences between groups.
    """

    value: float | None
    n: int
    interval: Interval | None
    lacking: str
    replicates: Array | None = None


@dataclass
class GroupTables:
    """Confusion counts by group, drawn anew once for every metric that is asked for.

    Attributes:
        predicted: Predictions.
        parts: The groups.
        seed: Seed of the draws.
        level: Confidence of the intervals.
        fewest: Rows below which a group is not compared.
    """

    predicted: Predicted
    parts: Sequence[Partition]
    seed: int = 0
    level: float = LEVEL
    fewest: int = FEWEST_ROWS
    _tables: list[tuple[Array, Array]] = field(default_factory=list)

    def measure(self, metric: Metric) -> list[list[GroupValue]]:
        """Return the metric of every group of every partition."""
        if metric.counts is None:
            return [
                [self._weighted(metric, p, g) for g in range(len(part.groups))] for p, part in enumerate(self.parts)
            ]
        if not self._tables:
            self._tables = self._draw()
        return [self._counted(metric, p, counts, drawn) for p, (counts, drawn) in enumerate(self._tables)]

    def _draw(self) -> list[tuple[Array, Array]]:
        """Return for each partition its counts `(group, k, k)` and their replicates `(replicate, group, k, k)`."""
        import numpy as np

        predicted, k = self.predicted, len(self.predicted.classes)
        codes = [part.codes for part in self.parts if len(part.by) == 1]
        joint = np.zeros(len(predicted), np.int64)
        for one in codes:
            # Renumbered after each column, so that the number of cells stays that of the combinations that occur.
            joint = np.unique(joint * (int(one.max(initial=0)) + 1) + one, return_inverse=True)[1]
        cells = int(joint.max(initial=-1)) + 1
        flat = (joint * k + predicted.truth) * k + predicted.labels
        counts = np.bincount(flat, minlength=cells * k * k).reshape(cells, k, k)
        drawn = counts_replicates(counts, seed=self.seed)
        tables = []
        for part in self.parts:
            # A cell lies in exactly one group of a partition.
            member = np.zeros((len(part.groups), cells))
            member[part.codes, joint] = 1.0
            whole = np.tensordot(member, counts, axes=(1, 0))
            tables.append((whole, np.moveaxis(np.tensordot(member, drawn, axes=(1, 1)), 0, 1)))
        return tables

    def _counted(self, metric: Metric, p: int, counts: Array, drawn: Array) -> list[GroupValue]:
        if metric.counts is None:
            raise TypeError(metric.name)
        values, replicates = metric.counts(counts), metric.counts(drawn)
        found = []
        for g in range(len(counts)):
            value = finite(values[g])
            if metric.share is not None:
                part, whole = (int(x) for x in metric.share(counts[g]))
                found.append(self._share(metric, part, whole, replicates[:, g], place=(p, g)))
                continue
            n = int(counts[g].sum())
            bounds = interval(replicates[:, g], level=self.level, method=MULTINOMIAL)
            found.append(GroupValue(value, n, bounds, self._lacking(metric, n), replicates[:, g]))
        return found

    def _share(self, metric: Metric, part: int, whole: int, replicates: Array, *, place: tuple[int, int]) -> GroupValue:
        lacking = self._lacking(metric, whole)
        if whole == 0:
            return GroupValue(None, 0, None, lacking or f"no row tells of {metric.name}")
        if whole >= _SMALL and min(part, whole - part) >= _FEW_OF_A_KIND:
            bounds = interval(replicates, level=self.level, method=MULTINOMIAL)
            return GroupValue(part / whole, whole, bounds, lacking, replicates)
        # Drawn from what the rows leave open (Jeffreys); a bootstrap of 0 of 40 would say 0 each time.
        import numpy as np

        rng = np.random.default_rng(self._seed(*place))
        open_to = rng.beta(part + 0.5, whole - part + 0.5, len(replicates))
        return GroupValue(part / whole, whole, wilson_interval(part, whole, level=self.level), lacking, open_to)

    def _weighted(self, metric: Metric, p: int, group: int) -> GroupValue:
        import numpy as np

        part = self.parts[p]
        rows = self.predicted.where(np.flatnonzero(part.codes == group))
        n, classes = len(rows), len(rows.classes)
        lacking = shortage(metric, rows, n, self.fewest)
        if not n:
            return GroupValue(None, 0, None, lacking)
        value = finite(metric(rows.truth, rows.guess(metric), classes))
        if lacking or value is None:
            return GroupValue(value, n, None, lacking or f"{metric.name} is undefined in this group")
        count = replicates_for(n, cost=classes if classes > 2 else 1)
        measure = metric.weighted(rows.truth, rows.guess(metric), classes)
        replicates = poisson_replicates(measure, n, seed=self._seed(p, group), count=count)
        return GroupValue(value, n, interval(replicates, level=self.level, method=POISSON), lacking, replicates)

    def _seed(self, p: int, group: int) -> list[int]:
        """Return the seed of one group of one partition.

        Groups share no rows, so each has its own draws, whatever its counts: two groups with equal counts and equal
        draws would differ by nothing, surely.
        """
        return [self.seed, p, group]

    def _lacking(self, metric: Metric, n: int) -> str:
        return shortage(metric, self.predicted, n, self.fewest) if n < self.fewest else ""


def rates(
    *,
    predictions: pl.LazyFrame | pl.DataFrame,
    problem: Problem,
    factors: Sequence[str],
    seed: int = 0,
    cuts: Mapping[str, Sequence[float]] | None = None,
) -> Evidence:
    """Return the error rates of each group of each factor and of each pair of factors.

    `details` holds `rates` (the names), `factors`, `level`, `threshold`, `fewest` and `groups`: first all rows, then
    the groups, each `{"by", "group", "label", "n", "positives", "rates": {name: {"value", "low", "high", "n",
    "status", "method", "p"}}}`. `status` is `insufficient` where fewer than `fewest` rows tell of that rate; `p` says
    how likely so large a difference from all other rows is by chance, adjusted for the number of groups (Holm).

    Args:
        predictions: Table of predictions with the factors.
        problem: What was learned.
        factors: Columns whose values are the groups; a number is cut into quarters.
        seed: Seed of the bootstrap.
        cuts: Where to cut number columns instead, by name.
    """
    import numpy as np

    predicted = read_predictions(predictions, problem, keep=factors)
    everyone = Partition((), ((),), np.zeros(len(predicted), np.int64))
    parts = [everyone, *partitions(predicted.columns, factors, cuts=cuts)]
    tables = GroupTables(predicted, parts, seed=seed)
    names = RATES[problem.task]
    measured = {name: tables.measure(METRICS[name]) for name in names}
    entries = [
        group_entry(predicted, part, g, {name: measured[name][p][g] for name in names})
        for p, part in enumerate(parts)
        for g in range(len(part.groups))
    ]
    _adjust(entries, names, shares=problem.task != "regression")
    return Evidence(
        measure="group_rates",
        value=None,
        n=len(predicted),
        seed=seed,
        method=f"{', '.join(names)} by group with {LEVEL:.0%} intervals (Mitchell et al. 2019)",
        details={
            "rates": list(names),
            "factors": list(dict.fromkeys(factors)),
            "level": LEVEL,
            "threshold": THRESHOLD if problem.task == "binary" else None,
            "fewest": FEWEST_ROWS,
            "groups": entries,
        },
    )


def group_entry(predicted: Predicted, part: Partition, group: int, values: Mapping[str, GroupValue]) -> dict[str, Any]:
    """Return a group and its values as plain JSON."""
    rows = part.codes == group
    positives = int(predicted.truth[rows].sum()) if predicted.problem.task == "binary" else None
    return {
        "by": list(part.by),
        "group": dict(zip(part.by, part.groups[group], strict=True)),
        "label": part.label(group) or "all rows",
        "n": int(rows.sum()),
        "positives": positives,
        "rates": {
            name: {
                "value": one.value,
                "low": one.interval.low if one.interval else None,
                "high": one.interval.high if one.interval else None,
                "n": one.n,
                "status": "insufficient" if one.lacking else "measured",
                "method": one.interval.method if one.interval else "",
            }
            for name, one in values.items()
        },
    }


def _adjust(entries: list[dict[str, Any]], names: Sequence[str], *, shares: bool) -> None:
    """Write into each measured rate of each group how surely it differs from that of all other rows."""
    every = entries[0]["rates"]
    places, found = [], []
    for entry in entries[1:]:
        for name in names:
            one = entry["rates"][name]
            one["p"] = None
            rest = every[name]["n"] - one["n"]
            if not shares or one["status"] != "measured" or not rest:
                continue
            hits, all_hits = (round(r["value"] * r["n"]) for r in (one, every[name]))
            places.append(one)
            found.append(shares_differ(hits, one["n"], all_hits - hits, rest))
    for one, p in zip(places, holm(found), strict=True):
        one["p"] = p
