"""Ensembles whose leaves hold one number: as ONNX for every runtime, and as bit vectors for our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelyard.inference.trees import MOST_LEAVES, MOST_TABLE, MOST_WORDS, Trees, word_of
from modelyard.models.graph import Graph
from modelyard.models.prepare import Preparation
from modelyard.models.trees import Tree, add_trees, below

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Boosted"]


@dataclass(frozen=True, slots=True)
class Boosted:
    """Trees that are summed.

    Attributes:
        trees: The trees; each leaf has one weight, for the output `Tree.first`.
        outputs: How many sums there are.
        link: What makes the answer of the sums.
        base: Is added to each sum, outputs; none if nothing is.
    """

    trees: list[Tree]
    outputs: int
    link: Literal["logistic", "softmax", "identity"]
    base: Array | None = None

    @classmethod
    def of(cls, trees: list[Tree], outputs: int, *, classes: bool, base: Array | None = None) -> Boosted:
        """Return it with the link that fits: one sum of a classifier is the log-odds of the second class."""
        several = "softmax" if outputs > 1 else "logistic"
        return cls(trees, outputs, several if classes else "identity", base)  # type: ignore[arg-type]

    def add(self, graph: Graph, matrix: str, output: str) -> None:
        """Add the trees to a graph, and the function behind the sums.

        Args:
            graph: The graph.
            matrix: Name of what the trees take.
            output: Name of the answer.
        """
        import numpy as np

        if self.base is None:
            raw = add_trees(graph, matrix, "raw", self.trees, self.outputs)
        else:
            total = add_trees(graph, matrix, "total", self.trees, self.outputs)
            raw = graph.add("Add", [total, graph.constant("base", self.base.reshape(1, -1).astype(np.float32))], "raw")
        graph.answer(raw, output, "regression" if self.link == "identity" else "classes", self.outputs)

    def vectors(self, preparation: Preparation) -> Trees | None:
        """Return the same as data for bit vectors; none where it would not be faster, or the matrix is another.

        Args:
            preparation: What makes the matrix; it fills numbers and makes codes of categories, no more.
        """
        import numpy as np

        style = preparation.style
        plain = not style.scale and style.missing == "native" and style.categories == "ordinal"
        sizes = [int(tree.leaf.sum()) for tree in self.trees]
        if not plain or not sizes or not 1 < max(sizes) <= MOST_LEAVES:
            return None
        nodes = [_nodes(tree) for tree in self.trees]
        inner = [tree.feature[which] for tree, (which, *_) in zip(self.trees, nodes, strict=True)]
        places = [at for at, known in enumerate(preparation.known) if known]
        numbers = len(preparation.fill)
        # Of the columns of the feeds; the matrix leaves out categories of which nothing is known.
        feeds = np.array([*range(numbers), *(numbers + at for at in places)])
        column = feeds[np.concatenate(inner).astype(np.int64)]
        threshold = below(np.concatenate([tree.threshold[w] for tree, (w, *_) in zip(self.trees, nodes, strict=True)]))
        threshold = np.maximum(threshold, np.finfo(np.float32).min)
        word = word_of(max(sizes))
        used = len(set(column.tolist()))
        rows = len(set(zip(column.tolist(), threshold.tolist(), strict=True))) + 2 * used
        if used * word > MOST_WORDS or rows * len(self.trees) * word > MOST_TABLE:
            return None
        leaves = np.zeros((len(self.trees), max(sizes)), "<f4")
        for row, tree, (_, order, *_) in zip(leaves, self.trees, nodes, strict=True):
            row[: len(order)] = tree.weight[order, 0]
        owner = np.repeat(np.arange(len(nodes)), [len(which) for which, *_ in nodes])
        missing = [tree.missing_left[which] for tree, (which, *_) in zip(self.trees, nodes, strict=True)]
        base = np.zeros(self.outputs) if self.base is None else self.base.ravel()
        return Trees(
            fill=preparation.fill.astype("<f4").tobytes(),
            known=[list(known) for known in preparation.known],
            outputs=self.outputs,
            link=self.link,
            base=base.astype(np.float32).tolist(),
            targets=[tree.first for tree in self.trees],
            leaves=leaves.tobytes(),
            tree=owner.astype("<u4").tobytes(),
            column=column.astype("<u4").tobytes(),
            threshold=threshold.astype("<f4").tobytes(),
            first=np.concatenate([first for *_, first, _ in nodes]).astype(np.uint8).tobytes(),
            last=np.concatenate([last for *_, last in nodes]).astype(np.uint8).tobytes(),
            missing_left=np.concatenate(missing).astype(np.uint8).tobytes(),
        )


def _nodes(tree: Tree) -> tuple[Array, Array, Array, Array]:
    """Return a tree's inner nodes, its leaves from left to right, and the first and last leaf left of each inner node.

    The last is the one after them.
    """
    import numpy as np

    inner: list[int] = []
    leaves: list[int] = []
    first: list[int] = []
    last: list[int] = []
    # Each entry of the way says a node, and whether its left side has been seen.
    way = [(0, False)]
    open_at: list[int] = []
    while way:
        node, seen = way.pop()
        if seen:
            last[open_at.pop()] = len(leaves)
        elif tree.leaf[node]:
            leaves.append(node)
        else:
            open_at.append(len(inner))
            inner.append(node)
            first.append(len(leaves))
            last.append(0)
            way += [(int(tree.right[node]), False), (node, True), (int(tree.left[node]), False)]
    return (*(np.array(found, np.int64) for found in (inner, leaves, first, last)),)  # type: ignore[return-value]
