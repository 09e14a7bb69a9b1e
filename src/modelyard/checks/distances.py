"""How far rows lie from those before them, by the profile in a bundle.

Distances are Gower's (J. C. Gower, A General Coefficient of Similarity and Some of Its Properties, 1971): shares of the
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

__all__ = ["Distances", "normality"]


class Distances:
    """Measures rows against the profile of a model.

    Args:
        profile: The profile, see `checks.profile`.
        signature: Columns of the model.
    """

    def __init__(self, profile: Mapping[str, Any], signature: Signature) -> None:
        import numpy as np

        self._np = np
        self._numbers = [_ranks(np, profile["features"].get(f.name, {})) for f in signature.numbers]

    def distinct(self, numeric: Array | None, categorical: Array | None) -> tuple[list[int], Array, Array]:
        """Return the positions of the rows that differ from all before them, and their ranks and texts.

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
        return kept, ranks[kept], texts[kept]

    def nearest(self, ranks: Array, texts: Array) -> Array:
        """Return the distance of each row but the first to the nearest one before it."""
        np = self._np
        distances = np.zeros((len(ranks), len(ranks)))
        # One buffer for all columns: making new ones takes longer than the sums.
        apart = np.empty_like(distances)
        for column in np.ascontiguousarray(ranks.T):
            np.subtract(column[:, None], column, out=apart)
            np.abs(apart, out=apart)
            distances += np.minimum(apart, 1.0, out=apart)
        for at in range(texts.shape[1]):
            distances += texts[:, at, None] != texts[None, :, at]
        distances[np.triu_indices(len(ranks))] = np.inf
        found: Array = distances[1:].min(axis=1) / max(ranks.shape[1] + texts.shape[1], 1)
        return found

    def _ranked(self, numeric: Array | None, categorical: Array | None) -> Array:
        np = self._np
        if numeric is None:
            found: Array = np.empty((0 if categorical is None else len(categorical), 0))
            return found
        columns = [np.interp(numeric[:, at], knots, middles) for at, (knots, middles) in enumerate(self._numbers)]
        # A missing number is far from all others, and near to one that is missing too.
        ranks: Array = np.nan_to_num(np.column_stack(columns), nan=2.0)
        return ranks


def normality(values: Array) -> float:
    """Return the correlation of values with those of a normal distribution (S. S. Shapiro, R. S. Francia, 1972)."""
    import numpy as np

    count = len(values)
    if not np.ptp(values):
        return 0.0
    quantile = NormalDist().inv_cdf
    # Of so many normal values in order, as Blom (1958) places them.
    normal = [quantile((i - 0.375) / (count + 0.25)) for i in range(1, count + 1)]
    return float(np.corrcoef(np.sort(values), normal)[0, 1] ** 2)


def _ranks(np: Any, entry: Mapping[str, Any]) -> tuple[Array, Array]:
    """Return the knots of a column, and the share of the profile in the middle of each."""
    if not entry.get("n"):
        return np.zeros(1), np.full(1, 0.5)
    below = np.asarray(entry["below"], np.float64) / entry["n"]
    return np.asarray(entry["knots"], np.float64), (below + np.concatenate(([0.0], below[:-1]))) / 2
