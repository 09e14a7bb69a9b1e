"""How unlike the rows a model was made from a row is, by the profile in its bundle.

Each value has a tail probability p: how much of the profile lies at least as far out. Two tests join them, each blind
to what the other sees: Fisher's sum of -2 log p (R. A. Fisher, Statistical Methods for Research Workers, 1925: many
values a little strange) and Tippett's smallest p (L. H. C. Tippett, The Methods of Statistics, 1931: one value very
strange). What of both is strange is measured on real rows when the model is made (`limits`, in the profile under
`usual`), as in split conformal prediction (H. Papadopoulos et al., Inductive Confidence Machines for Regression, 2002):
of rows like those about as many lie above a score as it says, however the columns depend on each other. With a profile
that does not say, the score is 1 - 2 min of the two probabilities (Bonferroni), as if columns were independent: where
they are not, more usual rows lie above it. The profile is coarse in its tails, so where they are, fewer do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ModelError
from modelyard.checks.profile import KNOTS
from modelyard.inference.grid import Grid, missing
from modelyard.inference.kernels import compiled

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Strange", "limits", "upper_tail"]

# Shares of rows for which limits are kept, in each decade.
_A_DECADE = 8


class Strange:
    """Says of rows whether they are outliers.

    Args:
        profile: The profile, see `checks.profile`.
        numbers: Number columns, in order.
        categories: Category columns, in order.
        score: Rows above it are outliers.

    Raises:
        ModelError: The profile is damaged (`model-unreadable`).
    """

    def __init__(
        self, profile: Mapping[str, Any], numbers: Sequence[str], categories: Sequence[str], score: float
    ) -> None:
        import numpy as np

        self._np = np
        features = profile.get("features", {})
        count = len(numbers) + len(categories)
        self._sum, self._one = _limits(profile.get("usual", {}).get("outlier", {}), count, 1 - score)
        knots: list[Array] = []
        said: list[tuple[list[float], list[float]]] = []
        for name in numbers:
            entry = features.get(name, {})
            knots.append(np.asarray(entry.get("knots", []), np.float32))
            said.append(_number(knots[-1].tolist(), entry.get("below", []), entry.get("n", 0)))
            if not _whole(knots[-1], said[-1][0]):
                raise ModelError(
                    "model-unreadable",
                    f"the profile of the model cannot be read: what it says of `{name}` does not fit together",
                    hint="take the bundle from the store again",
                )
        self._grid = Grid(knots)
        # By the place of a value: what is said below the knot that stands there, and on it.
        found = np.zeros((len(self._grid.flat), 2))
        for start, (on, between) in zip(self._grid.starts.tolist(), said, strict=True):
            found[start : start + len(between), 0] = between
            found[start : start + len(on), 1] = on
        self._said = found.ravel()
        self._bound = self._grid.bound(found[:, 0], found[:, 1])
        self._texts = [_category(features.get(name, {})) for name in categories]
        # One row's values are not added up in the order of those of many: a sum that is next to the limit is looked at.
        self._clear = self._sum * (1 - 1e-9)
        self._largest: Callable[[Array, Array | None], tuple[float, float]] | None = None
        if numbers and (kernels := compiled()) is not None:
            pairs = [zip_longest(between, on, fillvalue=0.0) for on, between in said]
            flat = np.array(list(chain.from_iterable(pairs)), np.float64)
            self._largest = kernels.Tails(np.concatenate(knots), [len(of) for of in knots], flat).largest

    def harmless(self, numeric: Array | None, categorical: Array | None) -> bool:
        """Say at a glance that no row is an outlier; of rows that are near to one it may say nothing, and so no.

        Args:
            numeric: float32, rows x numbers.
            categorical: Text, rows x categories.
        """
        np = self._np
        if self._largest is not None and numeric is not None:
            total, one = self._largest(numeric, None if categorical is None else self._categories(categorical))
            return total <= self._clear and one <= self._one
        parts = [] if numeric is None else [self._bound.take(self._grid.cells(numeric.T))]
        if categorical is not None:
            parts.append(self._categories(categorical))
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        most = np.maximum.reduce
        return bool(most(np.add.reduce(whole)) <= self._sum and most(whole, axis=None) <= self._one)

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
            parts.append(self._numbers(np.ascontiguousarray(numeric.T)))
        if categorical is not None:
            parts.append(self._categories(categorical))
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.add.reduce(whole), np.maximum.reduce(whole)

    def _categories(self, categorical: Array) -> Array:
        """Return -2 log p of each text, columns x rows."""
        columns = [
            [known.get(text, unseen) for text in categorical[:, at].tolist()]
            for at, (known, unseen) in enumerate(self._texts)
        ]
        return self._np.asarray(columns)

    def _numbers(self, matrix: Array) -> Array:
        """Return -2 log p of each number, columns x rows."""
        places = self._grid.find(matrix)
        on = self._grid.flat.take(places) == matrix
        places *= 2
        places += on
        said: Array = self._said.take(places)
        gone = missing(matrix)
        if gone is not None:
            said[gone] = 0.0
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


def _whole(knots: Array, on: Sequence[float]) -> bool:
    """Say whether knots are sorted and finite, and something is said of each."""
    import numpy as np

    return len(on) == len(knots) and bool(np.isfinite(knots).all() and (knots[:-1] <= knots[1:]).all())


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
