"""How unlike the rows a model was made from a row is, by the profile in its bundle.

Each value has a tail probability p: how much of the profile lies at least as far out. Two tests join them, each blind
to what the other sees: Fisher's sum of -2 log p (R. A. Fisher, Statistical Methods for Research Workers, 1925: many
values a little strange) and Tippett's smallest p (L. H. C. Tippett, The Methods of Statistics, 1931: one value very
strange). What of both is strange is measured on real rows when the model is made (`limits`, in the profile under
`usual`), as in split conformal prediction (H. Papadopoulos et al., Inductive Confidence Machines for Regression, 2002):
of rows like those about as many lie above a score as it says, however the columns depend on each other. With a profile
that does not say, the score is 1 - 2 min of the two probabilities (Bonferroni), as if columns were independent: where
they are not, more usual rows lie above it. The profile is coarse in its tails, so where they are, fewer do.

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

__all__ = ["Strange", "limits", "upper_tail"]

# Shares of rows for which limits are kept, in each decade.
_A_DECADE = 8

# From so many rows on halving all columns at once is faster than searching for each number.
_MANY = 256


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
        self._sum, self._one = _limits(profile.get("usual", {}).get("outlier", {}), count, 1 - score)
        keys, at, gap = [], [], []
        found: list[tuple[Any, list[float], list[float]]] = []
        for column, name in enumerate(numbers):
            entry = features.get(name, {})
            knots = np.asarray(entry.get("knots", []), np.float32)
            on, between = _number(knots.tolist(), entry.get("below", []), entry.get("n", 0))
            keys += [*(_ordered(np, knots) + (column << 33)).tolist(), (column + 1 << 33) - (1 << 32)]
            at += [*on, between[-1]]
            gap += between
            found.append((knots, [*on, between[-1]], between))
        # For many rows: the knots of each column, filled up to one length, and what is said on and below each.
        self._length = 1 << max((len(knots) for knots, *_ in found), default=0).bit_length()
        self._knots = np.full((len(numbers), self._length), np.inf, np.float32)
        self._said = np.zeros((len(numbers), self._length, 2))
        for column, (knots, on, between) in enumerate(found):
            self._knots[column, : len(knots)] = knots
            self._said[column, : len(on)] = np.stack([between, on], axis=1)
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
        sums, ones = self.measured(numeric, categorical)
        outliers: Array = (sums > self._sum) | (ones > self._one)
        return outliers

    def measured(self, numeric: Array | None, categorical: Array | None) -> tuple[Array, Array]:
        """Return for each row the sum of -2 log p and the largest of them."""
        np = self._np
        parts = []
        if numeric is not None:
            strange = self._numbers(numeric) if len(numeric) < _MANY else self._many_numbers(numeric)
            strange[np.isnan(numeric)] = 0.0
            parts.append(strange)
        if categorical is not None:
            columns = [
                [known.get(text, unseen) for text in categorical[:, at].tolist()]
                for at, (known, unseen) in enumerate(self._texts)
            ]
            parts.append(np.asarray(columns).T)
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return whole.sum(axis=1), whole.max(axis=1)

    def _numbers(self, numeric: Array) -> Array:
        """Return -2 log p of each number, by one search for all of them."""
        np = self._np
        keys = _ordered(np, numeric) + self._columns
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        said: Array = np.where(self._keys[found] == keys, self._at[found], self._gap[found])
        return said

    def _many_numbers(self, numeric: Array) -> Array:
        """Return the same of many rows: all halve the knots of their columns together, without a branch to guess."""
        np = self._np
        values = np.ascontiguousarray(numeric.T)
        knots, first = self._knots.ravel(), np.arange(len(values))[:, None] * self._length
        at = np.repeat(first, values.shape[1], axis=1)
        half = self._length // 2
        while half:
            at += half * (knots.take(at + (half - 1)) < values)
            half //= 2
        said: Array = self._said.ravel().take(2 * at + (knots.take(at) == values)).T
        return said


def limits(sums: Array, ones: Array) -> dict[str, list[float]]:
    """Return above which sum or which single value rows are, by the share of rows that is.

    Both tests have the same share of the rows above their limit, such that together they have no more than is said.

    Args:
        sums: Of real rows, see `Strange.measured`.
        ones: The largest single value of the same rows.
    """
    import numpy as np

    n = len(sums)
    ordered = np.sort(sums), np.sort(ones)
    # How many rows are at least as strange, by the test that finds a row stranger.
    ranks = [n - np.searchsorted(of, values) for of, values in zip(ordered, (sums, ones), strict=True)]
    rank = np.sort(np.minimum(*ranks))
    steps = math.floor(_A_DECADE * math.log10(n + 1))
    shares = sorted({1 / (n + 1), *(10 ** (-step / _A_DECADE) for step in range(1, steps + 1))})
    found: dict[str, list[float]] = {"share": [], "sum": [], "one": []}
    for share in shares:
        # A new row is the (n + 1)th: one less may lie above, if it is to be one of so many.
        above = math.floor((n + 1) * share + 1e-9) - 1
        at = n - int(rank[above])
        for name, value in (("share", share), ("sum", ordered[0][at]), ("one", ordered[1][at])):
            # A little more, so that rounding never puts the rows that are as strange above it: there may be many.
            found[name].append(float(f"{value * (1 + 1e-6):.7g}"))
    return found


def _limits(usual: Mapping[str, Sequence[float]], count: int, share: float) -> tuple[float, float]:
    """Return the limits of the sum and of one value above which this share of usual rows lies."""
    import numpy as np

    # Each of the two tests may take half of it.
    most = share / 2
    total = _limit_of_sum(count, most)
    one = -2 * math.log1p(-math.exp(math.log1p(-most) / count)) if count else math.inf
    if not usual:
        return total, one
    at = np.log(share), np.log(usual["share"])
    seen = float(np.interp(*at, usual["sum"])), float(np.interp(*at, usual["one"]))
    # Of a smaller share than one in all that were seen only the greatest of them is known.
    return (max(seen[0], total), max(seen[1], one)) if share < usual["share"][0] else seen


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
