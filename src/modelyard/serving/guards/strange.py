"""How unlike the rows a model was made from a row is, by the profile in its bundle.

Each value has a tail probability p: how much of the profile lies at least as far out. Two tests join them, each blind
to what the other sees: Fisher's sum of -2 log p (R. A. Fisher, Statistical Methods for Research Workers, 1925: many
values a little strange) and Tippett's smallest p (L. H. C. Tippett, The Methods of Statistics, 1931: one value very
strange); the score is 1 - 2 min of their two probabilities (Bonferroni), held against a limit. Both suppose that
columns are independent: where they are not, more usual rows lie above the limit than it says. The profile is coarse
in its tails, so where they are, fewer do.

All values of all rows are found in the profile by one search: the bits of a float32 are in the order of the numbers, so
column and value make one integer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from modelyard.checks.profile import KNOTS

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Strange", "upper_tail"]


class Strange:
    """Says of rows whether they are outliers.

    Args:
        profile: The profile, see `checks.profile`.
        numbers: Number columns, in order.
        categories: Category columns, in order.
        score: Rows above it are outliers.
    """

    def __init__(
        self, profile: Mapping[str, Any], numbers: Sequence[str], categories: Sequence[str], score: float
    ) -> None:
        import numpy as np

        self._np = np
        features = profile.get("features", {})
        count = len(numbers) + len(categories)
        # Each of the two tests may take half of what lies above the score.
        most = (1 - score) / 2
        self._sum = _limit_of_sum(count, most)
        self._one = -2 * math.log1p(-math.exp(math.log1p(-most) / count)) if count else math.inf
        keys, at, gap = [], [], []
        for column, name in enumerate(numbers):
            entry = features.get(name, {})
            knots = np.asarray(entry.get("knots", []), np.float32)
            on, between = _number(knots.tolist(), entry.get("below", []), entry.get("n", 0))
            keys += [*(_ordered(np, knots) + (column << 33)).tolist(), (column + 1 << 33) - (1 << 32)]
            at += [*on, between[-1]]
            gap += between
        self._keys = np.asarray(keys, np.int64)
        self._at, self._gap = np.asarray(at), np.asarray(gap)
        self._columns = np.arange(len(numbers), dtype=np.int64) << 33
        self._texts = [_category(features.get(name, {})) for name in categories]

    def outliers(self, numeric: Array | None, categorical: Array | None) -> Array:
        """Return for each row whether it is one; a missing value is not strange.

        Args:
            numeric: float32, rows x numbers.
            categorical: Text, rows x categories.
        """
        np = self._np
        parts = []
        if numeric is not None:
            keys = _ordered(np, numeric) + self._columns
            found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            strange = np.where(self._keys[found] == keys, self._at[found], self._gap[found])
            strange[np.isnan(numeric)] = 0.0
            parts.append(strange)
        if categorical is not None:
            columns = [
                [known.get(text, unseen) for text in categorical[:, at].tolist()]
                for at, (known, unseen) in enumerate(self._texts)
            ]
            parts.append(np.asarray(columns).T)
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        outliers: Array = (whole.sum(axis=1) > self._sum) | (whole.max(axis=1) > self._one)
        return outliers


def _ordered(np: Any, values: Any) -> Any:
    """Return integers in the order of float32 numbers."""
    bits = (np.ascontiguousarray(values, np.float32) + np.float32(0.0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, ~bits - (1 << 31), bits)


def _number(knots: Sequence[float], below: Sequence[int], n: int) -> tuple[list[float], list[float]]:
    """Return -2 log p at each knot, and below each and above the last."""
    if not knots or not n:
        return [0.0] * len(knots), [0.0] * (len(knots) + 1)
    whole = len(knots) < KNOTS
    on = []
    for at, upto in enumerate(below):
        # Where all values are listed a knot is a value; elsewhere it is a point of a curve.
        under = (below[at - 1] if at else 0) if whole else upto
        on.append(_strange(2 * min(upto, n - under), n))
    outside = _strange(0, n)
    between = [outside]
    for low, high in pairwise(below):
        middle = low if whole else (low + high) / 2
        between.append(_strange(2 * min(middle, n - middle), n))
    return on, [*between, outside]


def _category(entry: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Return -2 log p of each text, and of those that were not seen."""
    n = entry.get("n", 0)
    counts = entry.get("counts", {})
    if not n:
        return {}, 0.0
    known = {"": 0.0}
    rarer = entry.get("other", 0)
    rest = _strange(rarer, n)
    for text, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        rarer += count
        known[text] = _strange(rarer, n)
    return known, rest


def _strange(count: float, n: int) -> float:
    """Return -2 log p; nothing is rarer than one in all that were seen and one more."""
    return -2 * math.log(min(1.0, max(count, 1) / (n + 1)))


def upper_tail(x: float, count: int) -> float:
    """Return the probability that a chi-squared variable of `2 * count` degrees of freedom exceeds `x`."""
    term = total = 1.0
    for k in range(1, count):
        term *= x / 2 / k
        total += term
    return math.exp(-x / 2 + math.log(total))


def _limit_of_sum(count: int, most: float) -> float:
    low, high = 0.0, 100.0 + 20.0 * count
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if upper_tail(middle, max(count, 1)) > most else (low, middle)
    return high
