"""The table of an ensemble of trees, by which rows find the leaves that they end in, and what looks them up.

Leaves of a tree are numbered from left to right, a bit each. What a node sends to its right cannot end in the leaves
below its left: a mask clears their bits. All masks of a column that hold for a value are one word a tree, looked up by
which thresholds the value is above; the words of all columns are joined by AND, and the lowest bit left is the leaf.
(QuickScorer: C. Lucchese et al., QuickScorer: a fast algorithm to rank documents with additive ensembles of regression
trees, SIGIR 2015; with the masks of a column joined beforehand, as its rows are few.)
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.inference.grid import Grid, missing
from modelyard.inference.kernels import compiled

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["MOST_TABLE", "Nodes", "Sums", "Table", "sums_of"]

# Bytes of a table at most; what does not fit into the cache of a processor is slow, and the server holds it.
MOST_TABLE = 32_000_000
# What a float says of its exponent: bits behind it, and what is added to it; by the bytes of a word.
_EXPONENT = {2: (23, 127), 4: (23, 127), 8: (52, 1023)}
_LARGEST = 3.4028234663852886e38
# Bytes of words that are joined at a time.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Nodes:
    """The inner nodes of an ensemble; arrays with one entry a node, see `trees.Trees`."""

    tree: Array
    column: Array
    threshold: Array
    first: Array
    last: Array
    missing_left: Array


@dataclass(frozen=True)
class Table:
    """Which leaves each value leaves open.

    Attributes:
        words: Rows x trees. Each column has a row below its first knot, one above each, and one for a missing value.
        knots: float32, the thresholds of each column, sorted and finite; there is at least one.
        starts: The first row of each column.
        missing: The row of a missing value, by column.
        values: float32, trees x leaves.
        parts: The first tree of each sum, and how many trees there are.
        base: float32, is added to each sum.
    """

    words: Array
    knots: list[Array]
    starts: Array
    missing: Array
    values: Array
    parts: list[int]
    base: Array

    @classmethod
    def of(cls, nodes: Nodes, word: int, fill: Array, values: Array, targets: list[int], base: Array) -> Table:
        """Make the table of an ensemble.

        Args:
            nodes: Its nodes; their columns are those that are used, from 0 on.
            word: Bytes of a word.
            fill: float32, what stands for a missing value in each column; NaN where the trees decide.
            values: float32, trees x leaves.
            targets: The sum that each tree is added to.
            base: float32, is added to each sum.

        Raises:
            ValueError: It is larger than is ever written.
        """
        import numpy as np

        at, threshold = nodes.column, nodes.threshold
        finite = np.isfinite(threshold)
        knots, rank = [], np.empty(len(at), np.intp)
        for one in range(len(fill)):
            mine = at == one
            # Every value is up to infinity: only one that is missing may go right.
            found = np.unique(threshold[mine & finite])
            knots.append(found if len(found) else np.array([_LARGEST], np.float32))
            rank[mine] = np.searchsorted(found, threshold[mine])
        sizes = np.array([len(of) + 2 for of in knots])
        count = len(values)
        # A file of some megabytes could ask for more memory than there is.
        if int(sizes.sum()) * count * word > MOST_TABLE:
            raise ValueError("its table is larger than is ever written")
        starts = np.cumsum(sizes) - sizes
        gone = starts + sizes - 1
        # Trees of one sum stand together.
        order = np.argsort(targets, kind="stable")
        place = np.empty(count, np.intp)
        place[order] = np.arange(count)
        one_bit = np.int64(1)
        mask = ~((one_bit << nodes.last.astype(np.int64)) - (one_bit << nodes.first.astype(np.int64)))
        words = np.full((int(sizes.sum()), count), -1, f"i{word}")
        mask = mask.astype(f"i{word}")
        np.bitwise_and.at(words, ((starts[at] + 1 + rank)[finite], place[nodes.tree[finite]]), mask[finite])
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            # A value above a threshold is above all before it.
            part = words[start : start + size - 1]
            np.bitwise_and.accumulate(part, axis=0, out=part)
        right = np.flatnonzero(nodes.missing_left == 0)
        np.bitwise_and.at(words, (gone[at[right]], place[nodes.tree[right]]), mask[right])
        # What stands for a missing value is looked up once.
        for one in np.flatnonzero(~np.isnan(fill)).tolist():
            gone[one] = starts[one] + np.searchsorted(knots[one], fill[one])
        parts = np.searchsorted(np.array(targets)[order], np.arange(len(base) + 1)).tolist()
        return cls(words, knots, starts, gone, np.ascontiguousarray(values[order]), parts, base)


class Sums(Protocol):
    """Looks rows up in a table; safe to call from several threads at once."""

    def of(self, matrix: Array) -> Array:
        """Return the sums of the leaves that rows end in.

        A row has the same sums, bit for bit, alone and among others.

        Args:
            matrix: float32, rows x columns.

        Returns:
            float32, rows x sums.
        """
        ...


def sums_of(table: Table, numbers: list[int]) -> Sums:
    """Return what looks rows up: compiled, where that is there.

    Args:
        table: The table.
        numbers: Where its columns lie in a matrix.
    """
    return _Numpy(table, numbers) if compiled() is None else _Compiled(table, numbers)


class _Compiled:
    """One row after the other, without a step in memory between what is looked up and its sum."""

    def __init__(self, table: Table, numbers: list[int]) -> None:
        import numpy as np

        kernels = compiled()
        assert kernels is not None  # noqa: S101 - who makes it has asked
        self._np = np
        self._outputs = len(table.base)
        self._write = kernels.Forest(
            table.words,
            np.concatenate(table.knots),
            [len(of) for of in table.knots],
            table.starts.tolist(),
            table.missing.tolist(),
            numbers,
            table.values,
            table.values.shape[1],
            table.parts,
            table.base,
        ).sums

    def of(self, matrix: Array) -> Array:
        sums = self._np.empty((len(matrix), self._outputs), self._np.float32)
        self._write(matrix, sums)
        return sums


class _Numpy:
    """All rows of a block at once, a step at a time."""

    def __init__(self, table: Table, numbers: list[int]) -> None:
        import numpy as np

        self._np = np
        self._rooms = threading.local()
        self._numbers = np.array(numbers, np.intp)
        self._words, self._parts, self._base = table.words, table.parts, table.base
        self._based = bool(table.base.any())
        self._gone = table.missing[:, None]
        self._grid = Grid(table.knots)
        # From a place in the grid to a row of the table; mostly they are the same.
        self._shift = (table.starts - self._grid.starts)[:, None]
        self._shifted = bool(self._shift.any())
        count, leaves = table.values.shape
        self._values = table.values.ravel()
        word = table.words.itemsize
        self._bits, bias = _EXPONENT[word]
        self._float: Any
        self._same: Any
        self._float, self._same = (np.float64, np.int64) if word == 8 else (np.float32, np.int32)
        # From the exponent of a leaf's bit to the place of its value.
        self._leaf = (np.arange(count) * leaves - bias).astype(self._same)
        self._block = max(8, _BLOCK // (count * word * len(table.knots)))

    def of(self, matrix: Array) -> Array:
        """Return the sums, a block after the other."""
        np, step = self._np, self._block
        columns = np.ascontiguousarray(matrix[:, self._numbers].T)
        sums = [self._sums(columns[:, at : at + step]) for at in range(0, max(len(matrix), 1), step)]
        return sums[0] if len(sums) == 1 else np.concatenate(sums)

    def _bins(self, matrix: Array) -> Array:
        """Return the row of the table for each value, columns x rows."""
        np = self._np
        bins = self._grid.find(matrix)
        if self._shifted:
            bins += self._shift
        gone = missing(matrix)
        if gone is not None:
            bins = np.where(gone, self._gone, bins)
        return bins

    def _sums(self, matrix: Array) -> Array:
        """Return the sums of a block.

        Args:
            matrix: columns x rows.
        """
        np, words = self._np, self._words
        bins = self._bins(matrix)
        shape = (*bins.shape, words.shape[1])
        # Memory of this size would be taken from the system and given back each time.
        room = getattr(self._rooms, "room", None)
        if room is None:
            room = self._rooms.room = np.empty(len(bins) * self._block * words.shape[1], words.dtype)
        looked_up = room[: bins.size * words.shape[1]].reshape(shape)
        # A mode says what to do with places out of range; there are none, and to raise would take a copy.
        left = np.bitwise_and.reduce(words.take(bins, axis=0, out=looked_up, mode="clip"), axis=0)
        left &= -left
        leaf = left.astype(self._float).view(self._same)
        leaf >>= self._bits
        leaf += self._leaf
        values = self._values.take(leaf)
        if len(self._parts) == 2:
            sums: Array = np.add.reduce(values, axis=1, keepdims=True)
        else:
            sums = np.stack([values[:, a:b].sum(axis=1) for a, b in pairwise(self._parts)], axis=1)
        if self._based:
            sums += self._base
        return sums
