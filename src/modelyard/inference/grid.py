"""How many knots of its column lie below a value: for all values of all columns at once, without a branch to guess.

The span of a column is cut into equal cells, each of which knows how many knots lie in those before it; those inside a
cell are halved, and mostly there is one at most. Subtraction, multiplication and rounding keep the order of numbers, so
no value comes into a cell beyond that of a knot which it does not exceed: what is found is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Grid"]

# Cells that the span of a column is cut into.
_CELLS = 1024


class Grid:
    """Finds values among the knots of their columns.

    Args:
        knots: float32, those of each column, sorted and finite; a column may have none.

    Attributes:
        width: Places of a column; those behind its knots are infinite.
        flat: The knots of all columns, columns x width, as one row.
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
        self.width = max(map(len, knots), default=0) + 2 * self._half
        flat = np.full((len(knots), self.width), np.inf, np.float32)
        counts = np.empty((len(knots), _CELLS), np.intp)
        for one, (of, at) in enumerate(zip(knots, cells, strict=True)):
            flat[one, : len(of)] = of
            counts[one] = one * self.width + np.searchsorted(at, np.arange(_CELLS))
        self.flat, self._counts = flat.ravel(), counts.ravel()
        self._first = (np.arange(len(knots)) * _CELLS)[:, None]

    def find(self, matrix: Array) -> Array:
        """Return for each value the place in `flat` of the first knot of its column that is not below it.

        Args:
            matrix: float32, columns x rows; of a missing value the answer is some place of its column.
        """
        np = self._np
        values = np.fmin(np.fmax(matrix, self._low), self._high)
        cells = ((values - self._from) * self._scale).astype(np.intp)
        cells += self._first
        places: Array = self._counts.take(cells)
        half = self._half
        while half:
            places += half * (self.flat.take(places + (half - 1)) < matrix)
            half >>= 1
        return places
