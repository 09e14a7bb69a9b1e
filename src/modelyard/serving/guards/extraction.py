"""Which callers ask as if they copied the model: by what they ask, as far as a window of their newest rows shows it.

A copy is trained on answers, and what it takes to ask for good ones differs from what people ask. Three signs are
measured, each from 0 (as usual) to 1, and the largest is the score:

- **coverage**: the mean distance of the columns from those of training (Kolmogorov-Smirnov; total variation for
  categories). Random rows, the first attack (F. Tramer et al., Stealing Machine Learning Models via Prediction APIs,
  USENIX Security 2016), lie all over the ranges.
- **shape**: how far the distances of rows to the nearest row before them are from a normal distribution, by the
  correlation of Shapiro and Francia (1972), beside that of rows drawn from the profile: rows that are made of others
  by fixed steps give it away (M. Juuti et al., PRADA, EuroS&P 2019).
- **near**: how many more rows lie closer to one before them than rows of the profile do, but are not the same: a search
  along the boundary between classes.

A row that was asked before teaches a copy nothing and is not counted. Distances are Gower's (1971): shares of the
profile between two numbers, 0 or 1 between two categories, the mean over the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from modelyard.records import Signature

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FEWEST", "WINDOW", "Likeness"]

# Rows of a caller that are looked at, and of how many at least.
WINDOW = 256
FEWEST = 100
# A row of the profile that is nearer to another one than this share of its kind.
_NEAR = 0.02


class Likeness:
    """Scores rows against the profile of a model.

    Args:
        profile: The profile, see `checks.profile`.
        signature: Columns of the model.
        seed: Of the rows that are drawn from the profile.
    """

    def __init__(self, profile: Mapping[str, Any], signature: Signature, *, seed: int = 0) -> None:
        import numpy as np

        self._np = np
        features = profile["features"]
        self._numbers = [_ranks(np, features.get(f.name, {})) for f in signature.numbers]
        self._categories = [_shares(features.get(f.name, {})) for f in signature.categories]
        self._normal: dict[int, Array] = {}
        nearest = self._nearest(*self._draw(np.random.default_rng(seed)))
        self._near = float(np.quantile(nearest, _NEAR))
        self._shape = self._normality(nearest)

    def score(self, numeric: Array | None, categorical: Array | None) -> dict[str, float]:
        """Return each sign of rows in the order they were asked in; nothing of fewer than `FEWEST` different ones.

        Args:
            numeric: rows x numbers; a missing one is NaN.
            categorical: Text, rows x categories.
        """
        np = self._np
        ranks = self._ranked(numeric, categorical)
        texts = categorical if categorical is not None else np.empty((len(ranks), 0), object)
        seen: dict[Any, int] = {}
        for at, row in enumerate(zip(ranks.tolist(), texts.tolist(), strict=True)):
            seen.setdefault((tuple(row[0]), tuple(row[1])), at)
        kept = list(seen.values())
        if len(kept) < FEWEST:
            return {}
        ranks, texts = ranks[kept], texts[kept]
        nearest = self._nearest(ranks, texts)
        near = float((nearest < self._near).mean())
        return {
            "coverage": self._coverage(None if numeric is None else numeric[kept], texts),
            "shape": min(1.0, max(0.0, self._shape - self._normality(nearest)) / self._shape),
            "near": max(0.0, near - _NEAR) / (1 - _NEAR),
        }

    def _ranked(self, numeric: Array | None, categorical: Array | None) -> Array:
        np = self._np
        if numeric is None:
            found: Array = np.empty((0 if categorical is None else len(categorical), 0))
            return found
        columns = [np.interp(numeric[:, at], knots, middles) for at, (knots, middles, _) in enumerate(self._numbers)]
        # A missing number is far from all others, and near to one that is missing too.
        ranks: Array = np.nan_to_num(np.column_stack(columns), nan=2.0)
        return ranks

    def _coverage(self, numeric: Array | None, texts: Array) -> float:
        np = self._np
        found = []
        for at, (knots, _, below) in enumerate(self._numbers):
            values = np.sort(numeric[:, at][~np.isnan(numeric[:, at])]) if numeric is not None else np.empty(0)
            if len(values) and len(knots):
                found.append(float(np.abs(np.searchsorted(values, knots, side="right") / len(values) - below).max()))
        for at, shares in enumerate(self._categories):
            column = texts[:, at].tolist()
            asked = {text: column.count(text) / len(column) for text in set(column)}
            found.append(sum(abs(asked.get(t, 0.0) - shares.get(t, 0.0)) for t in asked.keys() | shares.keys()) / 2)
        return float(np.mean(found)) if found else 0.0

    def _nearest(self, ranks: Array, texts: Array) -> Array:
        """Return the distance of each row but the first to the nearest one before it."""
        np = self._np
        width = ranks.shape[1] + texts.shape[1]
        distances = np.zeros((len(ranks), len(ranks)))
        for at in range(ranks.shape[1]):
            distances += np.minimum(np.abs(ranks[:, at, None] - ranks[None, :, at]), 1.0)
        for at in range(texts.shape[1]):
            distances += texts[:, at, None] != texts[None, :, at]
        distances[np.triu_indices(len(ranks))] = np.inf
        found: Array = distances[1:].min(axis=1) / max(width, 1)
        return found

    def _normality(self, nearest: Array) -> float:
        """Return the correlation of the values with those of a normal distribution."""
        np = self._np
        count = len(nearest)
        if count not in self._normal:
            # Of so many normal values in order, as Blom (1958) places them.
            quantile = NormalDist().inv_cdf
            self._normal[count] = np.array([quantile((i - 0.375) / (count + 0.25)) for i in range(1, count + 1)])
        if not np.ptp(nearest):
            return 0.0
        return float(np.corrcoef(np.sort(nearest), self._normal[count])[0, 1] ** 2)

    def _draw(self, rng: Any) -> tuple[Array, Array]:
        """Return as many rows as a window has, drawn from the profile column by column."""
        np = self._np
        columns = []
        for _, middles, below in self._numbers:
            at = np.searchsorted(below, rng.random(WINDOW)) if len(below) else np.zeros(WINDOW, int)
            columns.append(middles[np.minimum(at, len(middles) - 1)])
        texts = np.empty((WINDOW, len(self._categories)), object)
        for at, shares in enumerate(self._categories):
            given = np.array(list(shares.values()))
            texts[:, at] = rng.choice(np.array(list(shares), object), WINDOW, p=given / given.sum())
        return (np.column_stack(columns) if columns else np.empty((WINDOW, 0))), texts


def _ranks(np: Any, entry: Mapping[str, Any]) -> tuple[Array, Array, Array]:
    """Return the knots of a column, the share of the profile in the middle of each, and at or below it."""
    if not entry.get("n"):
        return np.zeros(1), np.full(1, 0.5), np.ones(1)
    below = np.asarray(entry["below"], np.float64) / entry["n"]
    return np.asarray(entry["knots"], np.float64), (below + np.concatenate(([0.0], below[:-1]))) / 2, below


def _shares(entry: Mapping[str, Any]) -> dict[str, float]:
    total = entry.get("n", 0) + entry.get("missing", 0)
    if not total:
        return {"": 1.0}
    found = {text: count / total for text, count in entry["counts"].items()}
    return {**found, "": entry["missing"] / total} if entry["missing"] else found
