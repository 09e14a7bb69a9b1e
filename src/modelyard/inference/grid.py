"""How many knots of its column lie below a value: for all values of all columns at once, without a branch to guess.

The span of a column is cut into equal cells, each of which knows how many knots lie in those before it; those inside a
cell are halved, and mostly there is one at most. Subtraction, multiplication and rounding keep the order of numbers, so
no value comes into a cell beyond that of a knot which it does not exceed: what is found is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Grid", "missing"]

# Cells that the span of a column is cut into.
_CELLS = 1024


def missing(matrix: Array) -> Array | None:
    """Return which float32 values are missing; none if all are there, which is found at a fraction of the cost."""
    import numpy as np

    # A sum of squares is no number if one of them is none, and only then.
    return np.isnan(matrix) if math.isnan(np.vdot(matrix, matrix)) else None


class Grid:
    """Finds values among the knots of their columns.

    Args:
        knots: float32, those of each column, sorted and finite; a column may have none.

    Attributes:
        flat: The knots of all columns, as one row; behind those of each column some places are infinite.
        starts: The first place of each column.
    """

    def __init__(self, knots: Sequence[Array]) -> None:
        import numpy as np

        self._np = np
        lowest = np.array([of[0] if len(of) else 0 for of in knots], np.float32)
        highest = np.array([of[-1] if len(of) else 0 for of in knots], np.float32)
        with np.errstate(over="ignore", divide="ignore"):
            scale = np.float32(_CELLS - 1) / (highest - lowest)
        # A span that float32 cannot hold, or one that is next to nothing, is one cell.
        usable = np.isfinite(scale) & (scale > 0)
        self._low, self._high = lowest[:, None], highest[:, None]
        self._scale = np.where(usable, scale, np.float32(0))[:, None]
        self._from = np.where(usable, lowest, np.float32(0))[:, None]
        cells = [((of - a) * b).astype(np.intp) for of, a, b in zip(knots, self._from, self._scale, strict=True)]
        most = max((int(np.bincount(of).max()) for of in cells if len(of)), default=1)
        self._half = 1 << (most.bit_length() - 1)
        # Halving may look past the end of a column, where nothing is below anything.
        sizes = [len(of) + 2 * self._half for of in knots]
        self.starts = np.cumsum([0, *sizes])[:-1]
        self.flat = np.full(sum(sizes), np.inf, np.float32)
        counts = np.empty((len(knots), _CELLS), np.intp)
        for start, of, at, row in zip(self.starts.tolist(), knots, cells, counts, strict=True):
            self.flat[start : start + len(of)] = of
            row[:] = start + np.searchsorted(at, np.arange(_CELLS))
        self._counts = counts.ravel()
        self._first = (np.arange(len(knots)) * _CELLS)[:, None]
        whole = zip(self.starts.tolist(), cells, strict=True)
        self._knots = np.concatenate([start + np.arange(len(of)) for start, of in whole] or [np.empty(0, np.intp)])
        self._around = np.concatenate([at * _CELLS + of for at, of in enumerate(cells)] or [np.empty(0, np.intp)])

    def bound(self, below: Array, on: Array) -> Array:
        """Return for each cell the largest of what is said of the values that it may hold.

        Args:
            below: What is said of a value whose place has a larger knot, by place.
            on: What is said of one that equals the knot at its place, by place.
        """
        np = self._np
        largest: Array = below.take(self._counts)
        at = self._knots
        np.maximum.at(largest, self._around, np.maximum(np.maximum(below[at], on[at]), below[at + 1]))
        return largest

    def cells(self, matrix: Array) -> Array:
        """Return the cell of each value.

        Args:
            matrix: float32, columns x rows; of a missing value the answer is some cell of its column.
        """
        np = self._np
        values = np.fmax(matrix, self._low)
        np.fmin(values, self._high, out=values)
        np.subtract(values, self._from, out=values)
        np.multiply(values, self._scale, out=values)
        cells: Array = values.astype(np.intp)
        cells += self._first
        return cells

    def find(self, matrix: Array) -> Array:
        """Return for each value the place in `flat` of the first knot of its column that is not below it.

        Args:
            matrix: float32, columns x rows; of a missing value the answer is some place of its column.
        """
        places: Array = self._counts.take(self.cells(matrix))
        half = self._half
        while half > 1:
            places += half * (self.flat.take(places + (half - 1)) < matrix)
            half >>= 1
        places += self.flat.take(places) < matrix
        return places
