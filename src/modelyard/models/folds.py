"""The folds: one division of the training rows, the same for every family.

It depends on the rows, the kind of split and the seed, never on a family, so that scores can be compared pair by pair.
Rows that a key ties together stay together, as in the split of training and test.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ModelError
from modelyard._kit.units import units_of
from modelyard.models.dataset import Dataset

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Fold", "make_folds"]


@dataclass(frozen=True, slots=True)
class Fold:
    """One division: positions of the rows to learn from and of the rows to score."""

    train: Array
    valid: Array


def make_folds(
    data: Dataset,
    *,
    count: int = 5,
    group: str | None = None,
    order: str | None = None,
    keys: Sequence[Sequence[str]] = (),
    seed: int = 0,
) -> list[Fold]:
    """Divide the rows: at random and in each class alike, by group, or by time.

    Args:
        data: The training rows.
        count: Folds.
        group: Rows with one value of this column stay together.
        order: Column of time: learn from what was before, score what came next.
        keys: Key columns of each table; rows that any of them ties together stay together, whatever else is asked.
        seed: Seed of the shuffling.

    Raises:
        ModelError: There are too few rows, rows of a class, groups or times (`model-too-few-...`).
    """
    import numpy as np

    if len(data) < 2 * count:
        raise _few("rows", f"{len(data)} rows are too few for {count} folds")
    units, first = units_of(data.frame, keys)
    if order is not None:
        # As in the split: a unit is as new as its newest row.
        newest = np.full(len(first), -1)
        np.maximum.at(newest, units, _values(data, order))
        folds = _by_time(newest[units], count)
    elif group is not None:
        _values(data, group)  # says what is wrong with the column
        folds = _by_group(units_of(data.frame, [[group], *keys])[0], count, seed)
    elif len(first) == len(data):
        folds = _random(data, count, seed)
    else:
        folds = _random_units(data, units, count, seed)
    _check_classes(data, folds)
    return folds


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


def _random_units(data: Dataset, units: Array, count: int, seed: int) -> list[Fold]:
    """Units in random order, each class as even over the folds as whole units allow.

    Rare classes are dealt out first, because the others leave more choice: of the units with a class those with most
    of its rows first, each into the fold with the fewest of them.
    """
    import numpy as np
    from scipy.sparse import coo_array

    total = int(units.max()) + 1
    if total < count:
        raise _few("groups", f"the rows have {total} keys, too few for {count} folds")
    classes = data.problem.classes
    if not classes:
        return _by_group(units, count, seed)
    sizes = np.bincount(units)
    holds = coo_array((np.ones(len(units), np.int64), (units, data.target)), shape=(total, len(classes))).tocsc()
    place = np.random.default_rng(seed).permutation(total)
    fold_of = np.full(total, -1)
    filled = np.zeros(count, np.int64)
    for at in np.argsort(np.bincount(data.target, minlength=len(classes)), kind="stable").tolist():
        own = slice(holds.indptr[at], holds.indptr[at + 1])
        having, rows = holds.indices[own], holds.data[own]
        if len(having) < count:
            what = f"class `{classes[at]}` has rows of {len(having)} keys, and each of {count} folds needs one"
            raise _few("of-class", what)
        dealt = fold_of[having] >= 0
        of_class = np.bincount(fold_of[having[dealt]], rows[dealt], count)
        heap = [(int(of_class[k]), int(filled[k]), k) for k in range(count)]
        heapq.heapify(heap)
        having, rows = having[~dealt], rows[~dealt]
        for one in np.lexsort((place[having], -rows)).tolist():
            mine, every, k = heap[0]
            fold_of[having[one]] = k
            heapq.heapreplace(heap, (mine + int(rows[one]), every + int(sizes[having[one]]), k))
        filled[[k for *_, k in heap]] = [every for _, every, _ in heap]
    return _by_place(fold_of[units], count)


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
