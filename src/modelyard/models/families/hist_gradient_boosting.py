"""Gradient boosting on histograms, scikit-learn's own."""

from __future__ import annotations

from typing import Any

from modelyard.models.boosted import Boosted
from modelyard.models.families.base import NODE, Setting
from modelyard.models.graph import Graph
from modelyard.models.prepare import Style
from modelyard.models.safe import skops_bytes
from modelyard.models.trees import Tree
from modelyard.records import Task

__all__ = ["HistGradientBoosting"]


class HistGradientBoosting:
    """Small trees, each correcting those before it; a missing value takes the better branch."""

    name = "hist_gradient_boosting"
    tasks: tuple[Task, ...] = ("binary", "multiclass", "regression")
    rank = 2
    style = Style(scale=False, missing="native", categories="ordinal", most=250)

    def defaults(self, task: Task, rows: int) -> dict[str, Any]:
        """Return the library's settings, with smaller trees for few rows."""
        return {
            "learning_rate": 0.1,
            "max_iter": 120,
            "max_leaf_nodes": 31 if rows >= 5000 else 15,
            "min_samples_leaf": 20 if rows >= 500 else 8,
            "l2_regularization": 0.1,
        }

    def lighter(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the settings as they are."""
        return params

    def space(self, task: Task, rows: int) -> tuple[Setting, ...]:
        """Search the pace of learning and the size of the trees."""
        return (
            Setting("learning_rate", 0.03, 0.25, log=True),
            Setting("max_iter", 50, 250, whole=True),
            Setting("max_leaf_nodes", 7, 63, log=True, whole=True),
            Setting("min_samples_leaf", 5, 60, log=True, whole=True),
            Setting("l2_regularization", 1e-3, 10.0, log=True),
        )

    def build(self, params: dict[str, Any], task: Task, seed: int) -> Any:
        """Return boosting that runs to its last tree: stopping early would set rows aside by chance."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
        return kind(early_stopping=False, random_state=seed, **params)

    def cost(self, fitted: Any, width: int) -> float:
        """Nodes that a training row visits on its way down all trees."""
        visited = 0.0
        for nodes in (tree.nodes for stage in fitted._predictors for tree in stage):
            inner = nodes["is_leaf"] == 0
            visited += nodes["count"][inner].sum() / nodes["count"][0]
        return NODE * float(visited)

    def export(self, fitted: Any, graph: Graph, matrix: str, output: str) -> Boosted:
        """Add the trees, which are summed by class, and the function behind the sums."""
        stages = fitted._predictors
        outputs = len(stages[0])
        trees = [_tree(tree.nodes, at) for stage in stages for at, tree in enumerate(stage)]
        boosted = Boosted.of(trees, outputs, classes=hasattr(fitted, "classes_"), base=fitted._baseline_prediction)
        boosted.add(graph, matrix, output)
        return boosted

    def native(self, fitted: Any) -> tuple[str, bytes] | None:
        """Return it as skops writes it."""
        return "skops", skops_bytes(fitted)


def _tree(nodes: Any, first: int) -> Tree:
    return Tree(
        feature=nodes["feature_idx"],
        threshold=nodes["num_threshold"],
        left=nodes["left"],
        right=nodes["right"],
        missing_left=nodes["missing_go_to_left"] > 0,
        leaf=nodes["is_leaf"] > 0,
        weight=nodes["value"][:, None],
        first=first,
    )
