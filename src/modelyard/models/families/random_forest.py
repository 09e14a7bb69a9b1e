"""The random forest of scikit-learn, with trees bounded so that the export stays small."""

from __future__ import annotations

from typing import Any

from modelyard.models.families.base import NODE, Setting
from modelyard.models.graph import Graph
from modelyard.models.prepare import Style
from modelyard.models.safe import skops_bytes
from modelyard.models.trees import Tree, add_trees
from modelyard.records import Task

__all__ = ["RandomForest"]


class RandomForest:
    """Deep trees on resampled rows, averaged."""

    name = "random_forest"
    tasks: tuple[Task, ...] = ("binary", "multiclass", "regression")
    rank = 3
    style = Style(scale=False, missing="fill", categories="ordinal", most=250)

    def defaults(self, task: Task, rows: int) -> dict[str, Any]:
        """Return leaves large enough to keep the trees small, and a third of the columns at each split."""
        leaf = max(1, min(5, rows // 2000))
        return {"min_samples_leaf": leaf, "max_depth": 16, "max_features": 0.35, "max_samples": 0.5}

    def lighter(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return fewer trees: more of them lift every setting alike."""
        return {**params, "n_estimators": 30}

    def space(self, task: Task, rows: int) -> tuple[Setting, ...]:
        """Search the size of the trees and how alike they are."""
        return (
            Setting("min_samples_leaf", 1, max(4, min(20, rows // 500)), log=True, whole=True),
            Setting("max_depth", 6, 20, whole=True),
            Setting("max_features", 0.15, 0.9),
            Setting("max_samples", 0.3, 0.8),
        )

    def build(self, params: dict[str, Any], task: Task, seed: int) -> Any:
        """Return 100 trees of at most 1,000 leaves."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        kind = RandomForestRegressor if task == "regression" else RandomForestClassifier
        return kind(**{"n_estimators": 100, "max_leaf_nodes": 1000, "random_state": seed, "n_jobs": 1, **params})

    def cost(self, fitted: Any, width: int) -> float:
        """Nodes that a training row visits on its way down all trees."""
        visited = 0.0
        for tree in (e.tree_ for e in fitted.estimators_):
            inner = tree.children_left >= 0
            visited += tree.weighted_n_node_samples[inner].sum() / tree.weighted_n_node_samples[0]
        return NODE * float(visited)

    def export(self, fitted: Any, graph: Graph, matrix: str, output: str) -> None:
        """Add the trees and divide their sum; of two classes only the second is summed."""
        import numpy as np

        trees = [_tree(e.tree_) for e in fitted.estimators_]
        width = trees[0].weight.shape[1]
        # Leaves of a hundredth each would not sum to the half that as many trees on either side make.
        count = graph.constant("count", np.array(len(trees), np.float32))
        total = add_trees(graph, matrix, "raw", trees, width)
        if not hasattr(fitted, "classes_") or width > 1:
            graph.add("Div", [total, count], output)
        else:
            graph.both(graph.add("Div", [total, count], "answer_yes"), output)

    def native(self, fitted: Any) -> tuple[str, bytes] | None:
        """Return it as skops writes it."""
        return "skops", skops_bytes(fitted)


def _tree(tree: Any) -> Tree:
    import numpy as np

    # Nodes x classes for a classification, where each row sums to 1 in every version since 1.3; nodes x 1 otherwise.
    weight = tree.value[:, 0, :]
    return Tree(
        feature=tree.feature,
        threshold=tree.threshold,
        left=tree.children_left,
        right=tree.children_right,
        missing_left=np.zeros(tree.node_count, bool),
        leaf=tree.children_left < 0,
        weight=weight[:, 1:] if weight.shape[1] == 2 else weight,
    )
