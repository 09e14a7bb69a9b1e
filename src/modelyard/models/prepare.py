"""From feeds to the matrix that estimators take: what is missing is filled, categories become numbers.

One preparation is learned from the training rows and runs in two forms that agree to the bit: in numpy while
families are compared, and as ONNX nodes in front of the exported model. It is our own rather than a scikit-learn
`ColumnTransformer`, because skl2onnx cannot export rare categories: one-hot raises, and ordinal codes come out wrong
without a word (probabilities off by 0.25 on Adult).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelyard._kit.errors import ModelError
from modelyard.inference.encode import Feeds
from modelyard.records import Signature

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FARTHEST", "Preparation", "Style", "learn"]

# A scaled value beyond this says nothing more, and could overflow float32 further on.
FARTHEST = 1e6


@dataclass(frozen=True, slots=True)
class Style:
    """How an estimator wants its matrix.

    Attributes:
        scale: Centre and scale numbers. Never before trees: a float shifted by rounding may cross a split.
        missing: `fill` with the median and flag it in a column of its own, or leave it to the estimator (`native`).
        categories: `onehot`, or `ordinal` codes by falling frequency.
        most: Categories of a column that are told apart; the rarer ones are one.
    """

    scale: bool
    missing: Literal["fill", "native"]
    categories: Literal["onehot", "ordinal"]
    most: int


@dataclass(frozen=True, slots=True)
class Preparation:
    """What was learned from the training rows.

    Attributes:
        style: How the matrix is made.
        fill: What replaces a missing value, by number column; NaN where it is left to the estimator.
        mean: Subtracted from each number, if scaled.
        scale: Divides each number, if scaled.
        flags: Positions of the number columns whose missing values get a column of their own.
        known: Categories told apart, by category column, the most frequent first; all others share one code.
    """

    style: Style
    fill: Array
    mean: Array
    scale: Array
    flags: tuple[int, ...]
    known: tuple[tuple[str, ...], ...]

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return sum(count for _, count in self.blocks(range(len(self.fill)), range(len(self.known))))

    def blocks(self, numbers: Any, categories: Any) -> list[tuple[Any, int]]:
        """Return whose columns stand where: one entry a block, with how many columns it has.

        Args:
            numbers: What to call the number columns, in order.
            categories: What to call the category columns, in order.
        """
        found = [(name, 1) for name in numbers]
        found += [(numbers[at], 1) for at in self.flags]
        for name, known in zip(categories, self.known, strict=True):
            if known:
                found.append((name, len(known) + 1 if self.style.categories == "onehot" else 1))
        return found

    def about(self, signature: Signature) -> dict[str, Any]:
        """Return in words and numbers what is done to each column, as plain JSON."""
        said: dict[str, Any] = {}
        for at, feature in enumerate(signature.numbers):
            fill = float(self.fill[at])
            said[feature.name] = {"missing": "own branch" if fill != fill else fill, "flagged": at in self.flags}
            if self.style.scale:
                said[feature.name] |= {"mean": float(self.mean[at]), "scale": float(self.scale[at])}
        for feature, known in zip(signature.categories, self.known, strict=True):
            said[feature.name] = {"as": self.style.categories if known else "left out", "categories": list(known)}
        return said

    def transform(self, feeds: Feeds) -> Array:
        """Return the matrix of these rows as float32."""
        import numpy as np

        parts: list[Array] = []
        if len(self.fill):
            numeric = feeds["numeric"]
            gone = np.isnan(numeric)
            full = np.where(gone, self.fill, numeric)
            if self.style.scale:
                # Far beyond what was seen a quotient overflows to infinity, which is then brought back.
                with np.errstate(over="ignore"):
                    full = np.clip((full - self.mean) / self.scale, np.float32(-FARTHEST), np.float32(FARTHEST))
            parts.append(full)
            if self.flags:
                parts.append(gone[:, self.flags].astype(np.float32))
        for at, known in enumerate(self.known):
            if known:
                codes = _codes(feeds["categorical"][:, at], known)
                if self.style.categories == "onehot":
                    parts.append(np.eye(len(known) + 1, dtype=np.float32)[codes])
                else:
                    parts.append(codes[:, None].astype(np.float32))
        return np.concatenate(parts, axis=1)


def learn(feeds: Feeds, style: Style) -> Preparation:
    """Learn a preparation from training rows.

    Raises:
        ModelError: No column says anything (`model-no-features`).
    """
    import numpy as np

    numeric = feeds.get("numeric", np.empty((0, 0), np.float32))
    categorical = feeds.get("categorical", np.empty((0, 0), object))
    gone = np.isnan(numeric)
    gaps = gone.any(axis=0) & ~gone.all(axis=0)
    fill = np.array([_median(column) for column in numeric.T], np.float32)
    mean, scale = _moments(np.where(gone, fill, numeric) if style.scale else numeric[:0])
    # Left to the estimator only where it saw both kinds of rows and could learn from it.
    if style.missing == "native":
        fill = np.where(gaps, np.float32("nan"), fill).astype(np.float32)
    known = tuple(_frequent(column, style.most) for column in categorical.T)
    flags = tuple(int(at) for at in np.flatnonzero(gaps)) if style.missing == "fill" else ()
    if not len(fill) and not any(known):
        raise ModelError(
            "model-no-features",
            "no column is left to learn from: every category is seen too rarely",
            hint="keep a column of numbers, or one whose values repeat",
        )
    return Preparation(style=style, fill=fill, mean=mean, scale=scale, flags=flags, known=known)


def _median(column: Array) -> float:
    import numpy as np

    seen = column[~np.isnan(column)]
    return float(np.median(seen.astype(np.float64))) if len(seen) else 0.0


def _moments(full: Array) -> tuple[Array, Array]:
    """Mean and deviation of each column, rounded to float32 so that numpy and ONNX divide by the same number."""
    import numpy as np

    if not full.size:
        return np.zeros(full.shape[1], np.float32), np.ones(full.shape[1], np.float32)
    wide = full.astype(np.float64)
    mean = wide.mean(axis=0).astype(np.float32)
    scale = wide.std(axis=0).astype(np.float32)
    constant = full.min(axis=0) == full.max(axis=0)
    return mean, np.where(constant | (scale == 0), np.float32(1), scale).astype(np.float32)


def _frequent(column: Array, most: int) -> tuple[str, ...]:
    """The categories seen often enough to learn from, the most frequent first, ties by name."""
    counts = Counter(column.tolist())
    least = max(2, min(10, len(column) // 100))
    often = sorted((-count, name) for name, count in counts.items() if count >= least)
    return tuple(name for _, name in often[:most])


def _codes(column: Array, known: tuple[str, ...]) -> Array:
    import numpy as np

    code = {name: at for at, name in enumerate(known)}
    other = len(known)
    return np.array([code.get(name, other) for name in column.tolist()], np.int64)
