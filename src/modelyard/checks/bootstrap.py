"""Intervals of confidence: by resampling, and exact ones for small groups.

- Rates need only confusion counts: whole tables of counts are drawn again (multinomial), thousands at a time, for
  all groups at once. The cost does not depend on the number of rows.
- Everything else is measured again with a Poisson weight for each row (Hanley and MacGibbon 2006, "Creating
  non-parametric bootstrap samples using Poisson frequencies"), which needs no drawing of rows.
- A share of few rows gets a Wilson interval: a bootstrap of 3 of 3 says 100 % with certainty.

All are seeded: the same numbers and the same seed give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.records import Interval

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = [
    "LEVEL",
    "REPLICATES",
    "counts_replicates",
    "interval",
    "poisson_replicates",
    "replicates_for",
    "wilson",
    "wilson_interval",
]

LEVEL = 0.95
REPLICATES = 1000
# A percentile of fewer replicates is too rough to be compared with a limit.
_FEWEST = 200
# Weights drawn for one interval: about a second of one core.
_MOST_WEIGHTS = 100_000_000
# Cells drawn for one table of counts.
_MOST_CELLS = 4_000_000


def replicates_for(n: int, *, cost: int = 1) -> int:
    """Return how many replicates to draw of `n` rows: 1000, and fewer (not below 200) where that is dear.

    Args:
        n: Rows.
        cost: How many times each row is looked at in one replicate, e.g. once a class.
    """
    return max(_FEWEST, min(REPLICATES, _MOST_WEIGHTS // max(1, n * cost)))


def poisson_replicates(
    measure: Callable[[Array], Any], n: int, *, seed: int | Sequence[int], count: int = REPLICATES
) -> Array:
    """Measure again and again with random weights of the rows.

    Args:
        measure: Weights of the rows (small whole numbers) -> one value, or a sequence of values.
        n: Rows.
        seed: Seed of the weights. The same seed gives the same weights, so that two models can be compared in pairs.
        count: Replicates.

    Returns:
        `count` values, or `count` rows of values.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    table = _poisson_table()
    return np.array([measure(table[rng.integers(0, len(table), n, dtype=np.uint16)]) for _ in range(count)])


def _poisson_table() -> Array:
    """Return 65,536 numbers that are distributed as Poisson(1): a look-up is ten times cheaper than a draw."""
    import math

    import numpy as np

    share = [math.exp(-1) / math.factorial(k) for k in range(9)]
    edges = np.round(np.cumsum(share) * 65536).astype(int)
    edges[-1] = 65536
    return np.repeat(np.arange(9, dtype=np.uint8), np.diff(edges, prepend=0))


def counts_replicates(counts: Array, *, seed: int, count: int = REPLICATES) -> Array:
    """Draw whole tables of counts anew (multinomial bootstrap).

    Args:
        counts: Rows by cell, of any shape, e.g. `(group, true class, predicted class)`.
        seed: Seed of the draws.
        count: Replicates; fewer, but at least 200, are drawn of very large tables.

    Returns:
        Counts of the shape `(replicates, *counts.shape)`; each replicate has as many rows as `counts`.
    """
    import numpy as np

    flat = np.asarray(counts, np.int64).ravel()
    filled = np.flatnonzero(flat)
    count = max(_FEWEST, min(count, _MOST_CELLS // max(1, len(filled)))) if count > _FEWEST else count
    drawn = np.zeros((count, flat.size), np.int64)
    if len(filled):
        rows = int(flat.sum())
        drawn[:, filled] = np.random.default_rng(seed).multinomial(rows, flat[filled] / rows, size=count)
    return drawn.reshape(count, *np.shape(counts))


def interval(replicates: Array, *, level: float = LEVEL, method: str) -> Interval | None:
    """Return the percentile interval of replicates; none where the value is undefined in more than half of them.

    Args:
        replicates: One value a replicate; those that are not a number are left out.
        level: Confidence.
        method: How they were drawn.
    """
    import numpy as np

    known = replicates[np.isfinite(replicates)]
    if 2 * len(known) <= len(replicates):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(low=low, high=high, level=level, method=f"{method}, {len(replicates):,} replicates")


def wilson(part: Array | float, whole: Array | float, *, level: float = LEVEL) -> tuple[Array, Array]:
    """Return the Wilson score interval of a share (Wilson 1927): right even for 0 of 5; 0 to 1 for 0 of 0.

    Examples:
        >>> low, high = wilson(0, 5)
        >>> round(float(low), 3), round(float(high), 3)
        (0.0, 0.434)
    """
    from statistics import NormalDist

    import numpy as np

    z = NormalDist().inv_cdf((1 + level) / 2)
    k, n = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    m = np.maximum(n, 1)
    p = np.where(n > 0, k / m, 0.5)
    middle = (p + z * z / (2 * m)) / (1 + z * z / m)
    half = z / (1 + z * z / m) * np.sqrt(p * (1 - p) / m + z * z / (4 * m * m))
    # Nothing was seen: nothing is known.
    low, high = np.where(n > 0, middle - half, 0.0), np.where(n > 0, middle + half, 1.0)
    # At the ends rounding would leave 1e-17 where the bound is exactly 0 or 1.
    return np.where(k <= 0, 0.0, np.clip(low, 0, 1)), np.where(k >= n, 1.0, np.clip(high, 0, 1))


def wilson_interval(part: float, whole: float, *, level: float = LEVEL) -> Interval:
    """Return the Wilson interval of one share as a record."""
    low, high = wilson(part, whole, level=level)
    return Interval(low=float(low), high=float(high), level=level, method="Wilson score")
