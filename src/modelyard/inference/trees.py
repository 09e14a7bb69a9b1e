"""Run an ensemble of trees by bit vectors: no branch to guess, and all rows of a batch together.

Leaves of a tree are numbered from left to right, a bit each. What a node sends to its right cannot end in the leaves
below its left: a mask clears their bits. All masks of a column that hold for a value are one word a tree, looked up by
which thresholds the value is above; the words of all columns are joined by AND, and the lowest bit left is the leaf.
(QuickScorer: C. Lucchese et al., QuickScorer: a fast algorithm to rank documents with additive ensembles of regression
trees, SIGIR 2015; with the masks of a column joined beforehand, as its rows are few.)
"""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard._kit.errors import ModelError
from modelyard.inference.encode import Feeds
from modelyard.inference.grid import Grid, missing

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FILE", "FORMAT", "MOST_LEAVES", "MOST_TABLE", "MOST_WORDS", "Trees", "TreesPredictor", "word_of"]

# Name of the file in a bundle.
FILE = "trees.msgpack"
FORMAT = 1
# Leaves that fit a word, by the bytes of the word; its sign stays free.
_WORDS = {15: 2, 31: 4, 63: 8}
MOST_LEAVES = max(_WORDS)
# Bytes of words that a row joins for a tree, a word a column: beyond it (measured) walking down the trees is faster.
MOST_WORDS = 300
# Bytes of a table at most; what does not fit into the cache of a processor is slow, and the server holds it.
MOST_TABLE = 32_000_000
# What a float says of its exponent: bits behind it, and what is added to it.
_EXPONENT = {2: (23, 127), 4: (23, 127), 8: (52, 1023)}
_LARGEST = 3.4028234663852886e38
# Bytes of words that are joined at a time.
_BLOCK = 2_000_000


def word_of(leaves: int) -> int:
    """Return the bytes of a word that has a bit for each of the leaves of a tree.

    Raises:
        ValueError: There are more than `MOST_LEAVES`.
    """
    for most, size in _WORDS.items():
        if leaves <= most:
            return size
    raise ValueError(f"a tree has {leaves} leaves, more than {MOST_LEAVES}")


class _Numbered(msgspec.Struct):
    """What every format has; a file without it is of the first."""

    format: int = 1


class Trees(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An ensemble of trees as data; arrays are little-endian bytes with one entry an inner node.

    Attributes:
        fill: float32, what stands for a missing value in each column of numbers; NaN where the trees decide.
        known: Categories told apart in each column of categories, in the order of their codes; all others share the
            code after the last.
        outputs: Sums that are made.
        link: What makes the answer of the sums.
        base: Is added to each sum.
        targets: The sum that each tree is added to.
        leaves: float32, trees x leaves, filled up with zeros; from left to right.
        tree: uint32, the tree of a node.
        column: uint32; numbers come first.
        threshold: float32; what is up to it goes left. It may be infinite: then only a missing value goes right.
        first: uint8, the first leaf below the left child.
        last: uint8, the leaf after the last of them.
        missing_left: uint8, whether a missing value goes left.
        format: Number of this form.
    """

    fill: bytes
    known: list[list[str]]
    outputs: int
    link: Literal["logistic", "softmax", "identity"]
    base: list[float]
    targets: list[int]
    leaves: bytes
    tree: bytes
    column: bytes
    threshold: bytes
    first: bytes
    last: bytes
    missing_left: bytes
    format: int = FORMAT


class TreesPredictor:
    """Answers feeds by an ensemble of trees, preparation included.

    A row has the same answer, bit for bit, alone and among others.

    Args:
        data: A bundle's file `trees.msgpack`.

    Raises:
        ModelError: It is damaged, or of another format (`model-unreadable`).
    """

    def __init__(self, data: bytes) -> None:
        import numpy as np

        self._np = np
        self._rooms = threading.local()
        try:
            found = msgspec.msgpack.decode(data, type=_Numbered).format
            if found == FORMAT:
                self._read(msgspec.msgpack.decode(data, type=Trees))
        except (msgspec.DecodeError, ValueError, IndexError) as error:
            raise ModelError(
                "model-unreadable",
                f"the trees of the model cannot be read: {str(error)[:200]}",
                hint="take the bundle from the store again",
            ) from error
        if found != FORMAT:
            raise ModelError(
                "model-unreadable",
                f"the trees of the model have format {found}, and here format {FORMAT} is read",
                hint="run again with the versions of environment.json in the bundle",
            )

    def _read(self, trees: Trees) -> None:
        np = self._np
        count = len(trees.targets)
        leaves = np.frombuffer(trees.leaves, "<f4").reshape(count, -1)
        word = word_of(leaves.shape[1])
        tree, column = np.frombuffer(trees.tree, "<u4"), np.frombuffer(trees.column, "<u4")
        threshold = np.frombuffer(trees.threshold, "<f4")
        first, last = np.frombuffer(trees.first, np.uint8), np.frombuffer(trees.last, np.uint8)
        missing_left = np.frombuffer(trees.missing_left, np.uint8)
        fill = np.frombuffer(trees.fill, "<f4")
        width = len(fill) + len(trees.known)
        whole = (
            len({len(of) for of in (tree, column, threshold, first, last, missing_left)}) == 1
            and len(trees.base) == trees.outputs > 0
            and len(tree)
            and tree.max() < count
            and column.max() < width
            and last.max() <= leaves.shape[1]
            and (first < last).all()
            and all(0 <= target < trees.outputs for target in trees.targets)
            and (threshold >= -_LARGEST).all()
        )
        if not whole:
            raise ValueError("its parts do not fit together")
        self._link, self._outputs = trees.link, trees.outputs
        self._base = np.array(trees.base, np.float32)
        self._based = bool(self._base.any())
        self._one, self._far = np.float32(1), np.float32(88)
        used, at = np.unique(column, return_inverse=True)
        if len(used) * word > MOST_WORDS:
            raise ValueError("it has more columns than are ever written")
        self._columns(trees.known, len(fill), used)
        finite = np.isfinite(threshold)
        below, rank = [], np.empty(len(at), np.intp)
        for one in range(len(used)):
            mine = at == one
            # Every value is up to infinity: only one that is missing may go right.
            found = np.unique(threshold[mine & finite])
            below.append(found if len(found) else np.array([_LARGEST], np.float32))
            rank[mine] = np.searchsorted(found, threshold[mine])
        # In the table each column has a row below its first threshold, one above each, and one for a missing value.
        sizes = np.array([len(of) + 2 for of in below])
        # A file of some megabytes could ask for more memory than there is.
        if int(sizes.sum()) * count * word > MOST_TABLE:
            raise ValueError("its table is larger than is ever written")
        starts = np.cumsum(sizes) - sizes
        self._gone = (starts + sizes - 1)[:, None]
        self._grid = Grid(below)
        # From a place in the grid to a row of the table; mostly they are the same.
        self._shift = (starts - self._grid.starts)[:, None]
        self._shifted = bool(self._shift.any())
        # Trees of one sum stand together.
        order = np.argsort(trees.targets, kind="stable")
        place = np.empty(count, np.intp)
        place[order] = np.arange(count)
        self._parts = np.searchsorted(np.array(trees.targets)[order], np.arange(trees.outputs + 1)).tolist()
        one_bit = np.int64(1)
        mask = ~((one_bit << last.astype(np.int64)) - (one_bit << first.astype(np.int64)))
        self._table = np.full((int(sizes.sum()), count), -1, f"i{word}")
        mask = mask.astype(f"i{word}")
        np.bitwise_and.at(self._table, ((starts[at] + 1 + rank)[finite], place[tree[finite]]), mask[finite])
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            # A value above a threshold is above all before it.
            part = self._table[start : start + size - 1]
            np.bitwise_and.accumulate(part, axis=0, out=part)
        right = np.flatnonzero(missing_left == 0)
        np.bitwise_and.at(self._table, (self._gone[at[right], 0], place[tree[right]]), mask[right])
        # What stands for a missing value is looked up once.
        filled = np.full((len(used), 1), np.nan, np.float32)
        filled[: self._count, 0] = fill[self._numbers]
        self._gone = self._bins(filled)
        self._values = np.ascontiguousarray(leaves[order]).ravel()
        bits, bias = _EXPONENT[word]
        self._float, self._same = (np.float64, np.int64) if word == 8 else (np.float32, np.int32)
        self._bits = bits
        # From the exponent of a leaf's bit to the place of its value.
        self._leaf = (np.arange(count) * leaves.shape[1] - bias).astype(self._same)
        self._block = max(8, _BLOCK // (count * word * len(used)))

    def _columns(self, known: list[list[str]], count: int, used: Array) -> None:
        """Keep which columns are used: those of numbers, and of categories with their codes."""
        np = self._np
        numbers = used[used < count]
        self._numbers: Any = slice(None) if len(numbers) == count else numbers.astype(np.intp)
        self._count = len(numbers)
        self._categories = []
        for at in (used[self._count :] - count).tolist():
            texts = known[at]
            self._categories.append((at, dict(zip(texts, range(len(texts)), strict=True)), len(texts)))

    def predict(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return float32: rows x classes (probabilities) or rows x 1."""
        np = self._np
        matrix, step = self._matrix(feeds), self._block
        sums = [self._sums(matrix[:, at : at + step]) for at in range(0, max(matrix.shape[1], 1), step)]
        return self._answer(sums[0] if len(sums) == 1 else np.concatenate(sums))

    def _matrix(self, feeds: Feeds) -> Array:
        """Return the columns that the trees use, as float32, columns x rows."""
        np = self._np
        if not self._categories:
            numeric: Array = np.ascontiguousarray(feeds["numeric"][:, self._numbers].T)
            return numeric
        texts = feeds["categorical"]
        matrix = np.empty((self._count + len(self._categories), len(texts)), np.float32)
        if self._count:
            matrix[: self._count] = feeds["numeric"][:, self._numbers].T
        for row, (at, codes, other) in enumerate(self._categories, self._count):
            matrix[row] = [codes.get(text, other) for text in texts[:, at].tolist()]
        return matrix

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
        """Return the sums of the leaves that rows end in, rows x outputs.

        Args:
            matrix: columns x rows, see `_matrix`.
        """
        np, table = self._np, self._table
        bins = self._bins(matrix)
        shape = (*bins.shape, table.shape[1])
        # Memory of this size would be taken from the system and given back each time.
        room = getattr(self._rooms, "room", None)
        if room is None:
            room = self._rooms.room = np.empty(len(bins) * self._block * table.shape[1], table.dtype)
        looked_up = room[: bins.size * table.shape[1]].reshape(shape)
        # A mode says what to do with places out of range; there are none, and to raise would take a copy.
        words = np.bitwise_and.reduce(table.take(bins, axis=0, out=looked_up, mode="clip"), axis=0)
        words &= -words
        leaf = words.astype(self._float).view(self._same)
        leaf >>= self._bits
        leaf += self._leaf
        values = self._values.take(leaf)
        if self._outputs == 1:
            sums: Array = np.add.reduce(values, axis=1, keepdims=True)
        else:
            parts = self._parts
            sums = np.stack([values[:, a:b].sum(axis=1) for a, b in pairwise(parts)], axis=1)
        if self._based:
            sums += self._base
        return sums

    def _answer(self, sums: Array) -> Array:
        np = self._np
        if self._link == "identity":
            return sums
        answer: Array
        if self._link == "logistic":
            # As far as the exponential of a float32 goes.
            away = np.minimum(np.maximum(sums, -self._far), self._far)
            odds = np.exp(np.negative(away, out=away), out=away)
            odds += self._one
            yes = np.reciprocal(odds, out=odds)
            return np.concatenate([self._one - yes, yes], axis=1)
        raised = np.exp(sums - sums.max(axis=1, keepdims=True))
        answer = raised / raised.sum(axis=1, keepdims=True)
        return answer
