"""The folds: one division of the training rows, the same for every family.

It depends on the rows, the kind of split and the seed, never on a family, so that scores can be compared pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_bytes, digest_many
from modelyard._kit.errors import ModelError
from modelyard.models.dataset import Dataset

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Fold", "digest_of_folds", "make_folds"]


@dataclass(frozen=True, slots=True)
class Fold:
    """One division: positions of the rows to learn from and of the rows to score."""

    train: Array
    valid: Array


def make_folds(
    data: Dataset, *, count: int = 5, group: str | None = None, order: str | None = None, seed: int = 0
) -> list[Fold]:
    """Divide the rows: at random and in each class alike, by group, or by time.

    Args:
        data: The training rows.
        count: Folds.
        group: Rows with one value of this column stay together.
        order: Column of time: learn from what was before, score what came next.
        seed: Seed of the shuffling.

    Raises:
        ModelError: There are too few rows, rows of a class, groups or times (`model-too-few-...`).
    """
    if len(data) < 2 * count:
        raise _few("rows", f"{len(data)} rows are too few for {count} folds")
    if order is not None:
        folds = _by_time(_values(data, order), count)
    elif group is not None:
        folds = _by_group(_values(data, group), count, seed)
    else:
        folds = _random(data, count, seed)
    _check_classes(data, folds)
    return folds


def digest_of_folds(folds: list[Fold]) -> str:
    """Return the digest of a division, to show that all families had the same."""
    return digest_many(digest_bytes(rows.tobytes()) for fold in folds for rows in (fold.train, fold.valid))


def _random(data: Dataset, count: int, seed: int) -> list[Fold]:
    import numpy as np

    random = np.random.default_rng(seed)
    place = np.empty(len(data), np.int64)
    if data.problem.task == "regression":
        place[random.permutation(len(data))] = np.arange(len(data)) % count
        return _by_place(place, count)
    start = 0
    for at, name in enumerate(data.problem.classes):
        rows = np.flatnonzero(data.target == at)
        if len(rows) < count:
            raise _few("of-class", f"class `{name}` has {len(rows)} rows, and each of {count} folds needs one")
        # Each class goes on where the one before ended, so that the folds stay of one size.
        place[random.permutation(rows)] = (start + np.arange(len(rows))) % count
        start += len(rows)
    return _by_place(place, count)


def _by_group(values: Array, count: int, seed: int) -> list[Fold]:
    """Groups in random order, each into the fold with the fewest rows; large groups first."""
    import numpy as np

    groups, codes, sizes = np.unique(values, return_inverse=True, return_counts=True)
    if len(groups) < count:
        raise _few("groups", f"{len(groups)} groups are too few for {count} folds")
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    fold_of = np.empty(len(groups), np.int64)
    filled = np.zeros(count, np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return _by_place(fold_of[codes], count)


def _by_time(values: Array, count: int) -> list[Fold]:
    """Blocks of time in order; each but the first is scored by a model of all before it."""
    import numpy as np

    order = np.argsort(values, kind="stable")
    ordered = values[order]
    # Rows of one moment stay together: a cut inside a moment moves to its end.
    cuts = [
        np.searchsorted(ordered, ordered[len(ordered) * k // (count + 1)], side="right") for k in range(1, count + 1)
    ]
    ends = [*dict.fromkeys(int(c) for c in cuts if c < len(ordered)), len(ordered)]
    if len(ends) < count + 1:
        raise _few("times", f"the rows have too few different times for {count} folds")
    return [Fold(np.sort(order[:a]), np.sort(order[a:b])) for a, b in pairwise(ends)]


def _by_place(place: Array, count: int) -> list[Fold]:
    import numpy as np

    return [Fold(np.flatnonzero(place != k), np.flatnonzero(place == k)) for k in range(count)]


def _values(data: Dataset, column: str) -> Array:
    """The column of groups or times as whole numbers in the order of its values."""
    import numpy as np
    import polars as pl

    if column not in data.frame.columns:
        raise ModelError(
            "model-split-column",
            f"the rows are divided by column `{column}`, which the training table does not have",
            where=column,
            hint="keep the column in your features; the model does not see it",
        )
    series = data.frame[column]
    if series.null_count():
        raise ModelError(
            "model-split-column",
            f"column `{column}` is missing in {series.null_count():,} rows, which can stand in no fold",
            where=column,
            hint="forbid missing values in its contract, or fill them in your features",
        )
    values = series.unique().sort().to_list()
    return series.replace_strict(values, np.arange(len(values)), return_dtype=pl.Int64).to_numpy()


def _check_classes(data: Dataset, folds: list[Fold]) -> None:
    import numpy as np

    if data.problem.task == "regression":
        return
    for at, fold in enumerate(folds):
        for part in (fold.train, fold.valid):
            if len(np.unique(data.target[part])) < 2:
                raise _few("of-class", f"fold {at + 1} has rows of one class only")


def _few(what: str, message: str) -> ModelError:
    hint = "take fewer folds in `search: {folds: ...}`, load more rows, or join rare classes in your features"
    return ModelError(f"model-too-few-{what}", message, hint=hint)
