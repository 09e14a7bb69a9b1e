"""Ensembles of trees: the form that they have in a bundle, and what answers by it (see `table` for how)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard._kit.errors import ModelError
from modelyard.inference.encode import Feeds
from modelyard.inference.kernels import compiled
from modelyard.inference.table import MOST_TABLE, Nodes, Table, sums_of

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
_LARGEST = 3.4028234663852886e38


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
            # The last leaf is left of nothing: so each row finds one.
            and last.max() < leaves.shape[1]
            and (first < last).all()
            and all(0 <= target < trees.outputs for target in trees.targets)
            and (threshold >= -_LARGEST).all()
        )
        if not whole:
            raise ValueError("its parts do not fit together")
        self._link = trees.link
        # The second: as far as the exponential of a float32 goes.
        self._one, self._far = np.float32(1), np.float32(88)
        self._kernels = compiled()
        used, at = np.unique(column, return_inverse=True)
        if len(used) * word > MOST_WORDS:
            raise ValueError("it has more columns than are ever written")
        numbers = self._columns(trees.known, len(fill), used)
        filled = np.full(len(used), np.nan, np.float32)
        filled[: len(numbers)] = fill[numbers]
        nodes = Nodes(tree, at, threshold, first, last, missing_left)
        table = Table.of(nodes, word, filled, leaves, trees.targets, np.array(trees.base, np.float32))
        # Categories are numbers only in a matrix that is made for them.
        self._sums = sums_of(table, list(range(len(used))) if self._categories else numbers)

    def _columns(self, known: list[list[str]], count: int, used: Array) -> list[int]:
        """Keep the columns of categories that are used, with their codes, and return those of numbers."""
        self._numbers: list[int] = used[used < count].tolist()
        self._categories = []
        for at in (used[len(self._numbers) :] - count).tolist():
            texts = known[at]
            self._categories.append((at, dict(zip(texts, range(len(texts)), strict=True)), len(texts)))
        return self._numbers

    def predict(self, feeds: Feeds) -> np.ndarray[Any, Any]:
        """Return float32: rows x classes (probabilities) or rows x 1."""
        return self._answer(self._sums.of(self._matrix(feeds)))

    def _matrix(self, feeds: Feeds) -> Array:
        """Return what the trees use, and where there are no categories, all that is there: float32, rows x columns."""
        if not self._categories:
            numeric: Array = feeds["numeric"]
            return numeric
        texts, count = feeds["categorical"], len(self._numbers)
        columns = self._np.empty((count + len(self._categories), len(texts)), self._np.float32)
        if count:
            columns[:count] = feeds["numeric"][:, self._numbers].T
        for row, (at, codes, other) in enumerate(self._categories, count):
            columns[row] = [codes.get(text, other) for text in texts[:, at].tolist()]
        return columns.T

    def _answer(self, sums: Array) -> Array:
        np = self._np
        if self._link == "identity":
            return sums
        answer: Array
        if self._link == "logistic":
            if self._kernels is not None:
                self._kernels.exponents(sums, self._far)
                answer = np.empty((len(sums), 2), np.float32)
                self._kernels.shares(np.exp(sums, out=sums), answer)
                return answer
            away = np.minimum(np.maximum(sums, -self._far), self._far)
            odds = np.exp(np.negative(away, out=away), out=away)
            odds += self._one
            yes = np.reciprocal(odds, out=odds)
            return np.concatenate([self._one - yes, yes], axis=1)
        raised = np.exp(sums - sums.max(axis=1, keepdims=True))
        answer = raised / raised.sum(axis=1, keepdims=True)
        return answer
