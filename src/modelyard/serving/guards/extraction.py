"""Which callers ask as if they copied the model: by what they ask, as far as a window of their newest rows shows it.

A copy is trained on answers, and what it takes to ask for good ones differs from what people ask. Four signs are
measured, each from 0 (as usual) to 1, and the largest is the score:

- **coverage**: the mean distance of the columns from those of training (Kolmogorov-Smirnov; total variation for
  categories). Random rows, the first attack (F. Tramer et al., Stealing Machine Learning Models via Prediction APIs,
  USENIX Security 2016), lie all over the ranges.
- **shape**: how far the distances of rows to the nearest row before them are from a normal distribution, beside those
  of real rows: rows that are made of others by fixed steps give it away (M. Juuti et al., PRADA, EuroS&P 2019).
- **near**: how many more rows lie closer to one before them than real rows do, but are not the same: a search along the
  boundary between classes.
- **far**: how many more rows lie farther from all before them than real rows do: random rows, whose columns do not go
  together, also where others hide among them.

What distances real rows have was measured when the model was made, see `checks.usual`; a profile that does not say
leaves the first sign alone, and one of an older version has no word on the last. A row that was asked before teaches a
copy nothing and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelyard.checks.distances import Distances, normality
from modelyard.checks.usual import FAR, NEAR
from modelyard.records import Signature

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FEWEST", "Likeness"]

# Rows of a caller that are looked at, at least.
FEWEST = 100


class Likeness:
    """Scores rows against the profile of a model.

    Args:
        profile: The profile, see `checks.profile`.
        signature: Columns of the model.

    Attributes:
        whole: Whether the profile says what distances are usual.
    """

    def __init__(self, profile: Mapping[str, Any], signature: Signature) -> None:
        import numpy as np

        self._np = np
        features = profile["features"]
        self._distances = Distances(profile, signature)
        self._numbers = [_curve(np, features.get(f.name, {})) for f in signature.numbers]
        self._categories = [_shares(features.get(f.name, {})) for f in signature.categories]
        self._usual = profile.get("usual", {}).get("window", {})
        self.whole = bool(self._usual)

    def score(self, numeric: Array | None, categorical: Array | None) -> dict[str, float]:
        """Return each sign of rows in the order they were asked in; nothing of fewer than `FEWEST` different ones.

        Args:
            numeric: rows x numbers; a missing one is NaN.
            categorical: Text, rows x categories.
        """
        kept, ranks, texts = self._distances.distinct(numeric, categorical)
        if len(kept) < FEWEST:
            return {}
        signs = {"coverage": self._coverage(None if numeric is None else numeric[kept], texts)}
        if not self.whole:
            return signs
        nearest, shape = self._distances.nearest(ranks, texts), self._usual["shape"]
        near = float((nearest < self._usual["near"]).mean())
        signs["shape"] = max(0.0, shape - normality(nearest)) / shape if shape else 0.0
        signs["near"] = max(0.0, near - NEAR) / (1 - NEAR)
        if "far" in self._usual:
            far = float((nearest > self._usual["far"]).mean())
            signs["far"] = max(0.0, far - FAR) / (1 - FAR)
        return signs

    def _coverage(self, numeric: Array | None, texts: Array) -> float:
        np = self._np
        found = []
        for at, (knots, below) in enumerate(self._numbers):
            values = np.sort(numeric[:, at][~np.isnan(numeric[:, at])]) if numeric is not None else np.empty(0)
            if len(values) and len(knots):
                found.append(float(np.abs(np.searchsorted(values, knots, side="right") / len(values) - below).max()))
        for at, shares in enumerate(self._categories):
            column = texts[:, at].tolist()
            asked = {text: column.count(text) / len(column) for text in set(column)}
            found.append(sum(abs(asked.get(t, 0.0) - shares.get(t, 0.0)) for t in asked.keys() | shares.keys()) / 2)
        return float(np.mean(found)) if found else 0.0


def _curve(np: Any, entry: Mapping[str, Any]) -> tuple[Array, Array]:
    """Return the knots of a column, and the share of the profile at or below each."""
    if not entry.get("n"):
        return np.zeros(1), np.ones(1)
    return np.asarray(entry["knots"], np.float64), np.asarray(entry["below"], np.float64) / entry["n"]


def _shares(entry: Mapping[str, Any]) -> dict[str, float]:
    total = entry.get("n", 0) + entry.get("missing", 0)
    if not total:
        return {"": 1.0}
    found = {text: count / total for text, count in entry["counts"].items()}
    return {**found, "": entry["missing"] / total} if entry["missing"] else found
