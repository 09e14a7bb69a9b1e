"""Which rows belong together: the split and the folds must never put two rows of one key on two sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["known_keys", "same_key", "units_of"]

_ROW = "__modelyard_row"


def known_keys(frame: pl.DataFrame, keys: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the keys, each once, whose columns the table still has; of half a key nobody knows what it names."""
    return [key for key in dict.fromkeys(map(tuple, keys)) if key and set(key) <= set(frame.columns)]


def same_key(frame: pl.DataFrame, key: Sequence[str]) -> Array:
    """Return for each row the first row with its key; a row that has none (a join found nothing) is its own first."""
    import polars as pl

    row = pl.col(_ROW)
    gone = pl.any_horizontal(pl.col(c).is_null() for c in key)
    numbered = frame.select(*dict.fromkeys(key)).with_row_index(_ROW)
    firsts: Array = numbered.select(pl.when(gone).then(row).otherwise(row.first().over(*key)))[_ROW].to_numpy()
    return firsts


def units_of(frame: pl.DataFrame, keys: Sequence[Sequence[str]]) -> tuple[Array, Array]:
    """Return the number of each row's unit, and the first row of each unit.

    Rows with the same value of any key are one unit, and so is what is tied together over several: a customer's visits,
    and everybody who shared one of them.

    Args:
        frame: The rows.
        keys: Columns of each key; one that the table does not have whole is left out. None: each row is a unit.
    """
    import numpy as np

    known = known_keys(frame, keys)
    rows = np.arange(frame.height)
    if not known:
        return rows, rows
    firsts = [same_key(frame, key) for key in known]
    if len(firsts) > 1:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        ties = np.tile(rows, len(firsts)), np.concatenate(firsts)
        graph = coo_array((np.ones(len(ties[0]), np.int8), ties), shape=(frame.height, frame.height))
        _, labels = connected_components(graph.tocsr(), directed=False)
        _, heads = np.unique(labels, return_index=True)
        firsts = [heads[labels]]
    first, units = np.unique(firsts[0], return_inverse=True)
    return units, first
