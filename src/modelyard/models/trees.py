"""Export ensembles of trees: any library's trees as arrays in, one ONNX node out.

Libraries compare float32 rows with float64 thresholds; the exported model has float32 thresholds. Each is moved down
to the nearest float32 that is not above it, so that for every float32 row both decide alike, always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.models.graph import ML, Graph

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Tree", "add_trees", "below"]


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree; node 0 is the root, and every array has one entry a node.

    Attributes:
        feature: Column of the matrix that is compared.
        threshold: A row with a value up to this goes left.
        left: Position of the left child.
        right: Position of the right child.
        missing_left: Whether a missing value goes left.
        leaf: Whether the node is a leaf.
        weight: What a leaf adds, nodes x outputs.
        first: Output that the first column of `weight` is added to.
    """

    feature: Array
    threshold: Array
    left: Array
    right: Array
    missing_left: Array
    leaf: Array
    weight: Array
    first: int = 0


def add_trees(graph: Graph, matrix: str, output: str, trees: list[Tree], outputs: int) -> str:
    """Add the sum of trees to a graph.

    Args:
        graph: The graph.
        matrix: Name of what the trees take.
        output: Name of the sums, rows x outputs.
        trees: The trees.
        outputs: How many sums there are.
    """
    if all(tree.weight.shape[1] == 1 for tree in trees):
        return _compact(graph, matrix, output, trees, outputs)
    return _wide(graph, matrix, output, trees, outputs)


def _compact(graph: Graph, matrix: str, output: str, trees: list[Tree], outputs: int) -> str:
    """The newer operator, whose leaves hold one number: less than half of the file and of the memory."""
    import numpy as np
    from onnx import numpy_helper

    trees = [_with_root(tree) for tree in trees]
    start = np.cumsum([0, *(len(t.leaf) for t in trees)])[:-1]
    leaf = np.concatenate([t.leaf for t in trees])
    inner = np.flatnonzero(~leaf)
    # Inner nodes and leaves are counted apart.
    place = np.where(leaf, np.cumsum(leaf) - 1, np.cumsum(~leaf) - 1)

    def inner_of(values: list[Array]) -> Any:
        return np.concatenate(values)[inner]

    left = inner_of([t.left.astype(np.int64) + at for t, at in zip(trees, start, strict=True)])
    right = inner_of([t.right.astype(np.int64) + at for t, at in zip(trees, start, strict=True)])
    owner = np.repeat([t.first for t in trees], [len(t.leaf) for t in trees])
    weights = np.concatenate([t.weight[:, 0] for t in trees])[leaf]
    graph.use(ML, 5)
    return graph.add(
        "TreeEnsemble",
        [matrix],
        output,
        ML,
        n_targets=outputs,
        aggregate_function=1,  # the sum
        post_transform=0,
        tree_roots=place[start].tolist(),
        nodes_featureids=inner_of([t.feature for t in trees]).astype(np.int64).tolist(),
        nodes_splits=numpy_helper.from_array(below(inner_of([t.threshold for t in trees])), "splits"),
        nodes_modes=numpy_helper.from_array(np.zeros(len(inner), np.uint8), "modes"),  # 0: left up to the split
        nodes_truenodeids=place[left].tolist(),
        nodes_trueleafs=leaf[left].astype(np.int64).tolist(),
        nodes_falsenodeids=place[right].tolist(),
        nodes_falseleafs=leaf[right].astype(np.int64).tolist(),
        nodes_missing_value_tracks_true=inner_of([t.missing_left for t in trees]).astype(np.int64).tolist(),
        leaf_targetids=owner[leaf].tolist(),
        leaf_weights=numpy_helper.from_array(weights.astype(np.float32), "weights"),
    )


def _with_root(tree: Tree) -> Tree:
    """A tree of one leaf gets a root above two of them: the operator knows no tree without a split."""
    import numpy as np

    if not tree.leaf[0]:
        return tree
    nothing, both = np.zeros(3, np.int64), np.repeat(tree.weight[:1], 3, axis=0)
    left, right = np.array([1, 0, 0]), np.array([2, 0, 0])
    return Tree(nothing, np.zeros(3), left, right, nothing > 0, np.array([False, True, True]), both, tree.first)


def _wide(graph: Graph, matrix: str, output: str, trees: list[Tree], outputs: int) -> str:
    """The older operator, whose leaves may hold a number for each output."""
    import numpy as np

    def column(values: list[Array]) -> Any:
        return np.concatenate(values).tolist()

    leaves = [np.flatnonzero(t.leaf) for t in trees]
    widths = [t.weight.shape[1] for t in trees]
    parts = list(zip(trees, leaves, widths, strict=True))
    nodes = {
        "treeids": column([np.full(len(t.leaf), at) for at, t in enumerate(trees)]),
        "nodeids": column([np.arange(len(t.leaf)) for t in trees]),
        "featureids": column([np.where(t.leaf, 0, t.feature).astype(np.int64) for t in trees]),
        "values": column([below(np.where(t.leaf, 0.0, t.threshold)) for t in trees]),
        "truenodeids": column([np.where(t.leaf, 0, t.left).astype(np.int64) for t in trees]),
        "falsenodeids": column([np.where(t.leaf, 0, t.right).astype(np.int64) for t in trees]),
        "missing_value_tracks_true": column([(~t.leaf & t.missing_left).astype(np.int64) for t in trees]),
        "modes": ["LEAF" if leaf else "BRANCH_LEQ" for t in trees for leaf in t.leaf.tolist()],
    }
    targets = {
        "treeids": column([np.full(len(own) * wide, at) for at, (_, own, wide) in enumerate(parts)]),
        "nodeids": column([np.repeat(own, wide) for _, own, wide in parts]),
        "ids": column([np.tile(np.arange(t.first, t.first + wide), len(own)) for t, own, wide in parts]),
        "weights": column([t.weight[own].astype(np.float32).ravel() for t, own, _ in parts]),
    }
    attributes = {f"nodes_{name}": values for name, values in nodes.items()}
    attributes |= {f"target_{name}": values for name, values in targets.items()}
    return graph.add("TreeEnsembleRegressor", [matrix], output, ML, n_targets=outputs, **attributes)


def below(threshold: Array) -> Array:
    """Return the largest float32 that is not above each threshold.

    Examples:
        >>> import numpy as np
        >>> float(np.float32(16777217.0)), float(below(np.array([16777219.0]))[0])
        (16777216.0, 16777218.0)
    """
    import numpy as np

    threshold = np.asarray(threshold, np.float64)
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
        return np.where(near <= threshold, near, np.nextafter(near, np.float32("-inf")))
