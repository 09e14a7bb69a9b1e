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


def add_trees(
    graph: Graph, matrix: str, output: str, trees: list[Tree], outputs: int, base: Array | None = None
) -> str:
    """Add the sum of trees to a graph.

    Args:
        graph: The graph.
        matrix: Name of what the trees take.
        output: Name of the sums, rows x outputs.
        trees: The trees.
        outputs: How many sums there are.
        base: What each sum begins with; 0 if not given.
    """
    import numpy as np

    def column(values: list[Array]) -> Any:
        return np.concatenate(values).tolist()

    sizes = [len(t.feature) for t in trees]
    leaves = [np.flatnonzero(t.leaf) for t in trees]
    widths = [t.weight.shape[1] for t in trees]
    nodes = {
        "treeids": column([np.full(size, at) for at, size in enumerate(sizes)]),
        "nodeids": column([np.arange(size) for size in sizes]),
        "featureids": column([np.where(t.leaf, 0, t.feature).astype(np.int64) for t in trees]),
        "values": column([below(np.where(t.leaf, 0.0, t.threshold)) for t in trees]),
        "truenodeids": column([np.where(t.leaf, 0, t.left).astype(np.int64) for t in trees]),
        "falsenodeids": column([np.where(t.leaf, 0, t.right).astype(np.int64) for t in trees]),
        "missing_value_tracks_true": column([(~t.leaf & t.missing_left).astype(np.int64) for t in trees]),
        "modes": ["LEAF" if leaf else "BRANCH_LEQ" for t in trees for leaf in t.leaf.tolist()],
    }
    targets = {
        "treeids": column(
            [np.full(len(own) * wide, at) for at, (own, wide) in enumerate(zip(leaves, widths, strict=True))]
        ),
        "nodeids": column([np.repeat(own, wide) for own, wide in zip(leaves, widths, strict=True)]),
        "ids": column(
            [
                np.tile(np.arange(t.first, t.first + wide), len(own))
                for t, own, wide in zip(trees, leaves, widths, strict=True)
            ]
        ),
        "weights": column([t.weight[own].astype(np.float32).ravel() for t, own in zip(trees, leaves, strict=True)]),
    }
    attributes = {f"nodes_{name}": values for name, values in nodes.items()}
    attributes |= {f"target_{name}": values for name, values in targets.items()}
    if base is not None:
        attributes["base_values"] = np.asarray(base, np.float32).tolist()
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
