"""LightGBM: gradient boosting that grows the leaf with the largest gain."""

from __future__ import annotations

import warnings
from typing import Any

from modelyard.models.boosted import Boosted
from modelyard.models.families.base import NODE, Setting
from modelyard.models.graph import Graph
from modelyard.models.prepare import Style
from modelyard.models.trees import Tree
from modelyard.records import Task

__all__ = ["LightGBM"]


class LightGBM:
    """Trees grown leaf by leaf, each correcting those before it; a missing value takes the better branch."""

    name = "lightgbm"
    tasks: tuple[Task, ...] = ("binary", "multiclass", "regression")
    rank = 1
    style = Style(scale=False, missing="native", categories="ordinal", most=250)

    def defaults(self, task: Task, rows: int) -> dict[str, Any]:
        """Return the library's settings, with smaller trees for few rows."""
        return {
            "learning_rate": 0.1,
            "n_estimators": 120,
            "num_leaves": 31 if rows >= 5000 else 15,
            "min_child_samples": 20 if rows >= 500 else 8,
            "reg_lambda": 0.1,
            "colsample_bytree": 0.8,
        }

    def lighter(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the settings as they are."""
        return params

    def space(self, task: Task, rows: int) -> tuple[Setting, ...]:
        """Search the pace of learning, the size of the trees and how alike they are."""
        return (
            Setting("learning_rate", 0.03, 0.25, log=True),
            Setting("n_estimators", 50, 300, whole=True),
            Setting("num_leaves", 7, 63, log=True, whole=True),
            Setting("min_child_samples", 5, 60, log=True, whole=True),
            Setting("reg_lambda", 1e-3, 10.0, log=True),
            Setting("colsample_bytree", 0.4, 1.0),
        )

    def build(self, params: dict[str, Any], task: Task, seed: int) -> Any:
        """Return a booster that sums in one order, whatever the machine."""
        return _Booster({**params, "seed": seed}, task)

    def cost(self, fitted: Any, width: int) -> float:
        """Nodes that a training row visits on its way down all trees."""
        visited = 0.0
        for line in fitted.booster.model_to_string().splitlines():
            if line.startswith("internal_count=") and (counts := line.partition("=")[2].split()):
                visited += sum(map(float, counts)) / float(counts[0])
        return NODE * visited

    def export(self, fitted: Any, graph: Graph, matrix: str, output: str) -> Boosted:
        """Add the trees, which are summed by class, and the function behind the sums."""
        dump = fitted.booster.dump_model()
        outputs = dump["num_tree_per_iteration"]
        trees = [_tree(tree["tree_structure"], at % outputs) for at, tree in enumerate(dump["tree_info"])]
        boosted = Boosted.of(trees, outputs, classes=fitted.task != "regression")
        boosted.add(graph, matrix, output)
        return boosted

    def native(self, fitted: Any) -> tuple[str, bytes] | None:
        """Return it as LightGBM writes it."""
        return "lightgbm", fitted.booster.model_to_string().encode()


class _Booster:
    """LightGBM's own booster with the methods of a scikit-learn estimator.

    Its wrapper for scikit-learn would do, but imports pandas where it finds it and warns of column names.
    """

    def __init__(self, params: dict[str, Any], task: Task) -> None:
        self.task = task
        self.params = params
        self.booster: Any = None

    def fit(self, matrix: Any, target: Any) -> _Booster:
        import lightgbm
        import numpy as np

        rounds = self.params["n_estimators"]
        self.classes_ = np.unique(target) if self.task != "regression" else None
        if self.classes_ is not None:
            target = np.searchsorted(self.classes_, target)
        few = self.classes_ is not None and len(self.classes_) == 2
        objective = {"regression": "regression", "binary": "binary"}.get(self.task, "binary" if few else "multiclass")
        params = {
            **{k: v for k, v in self.params.items() if k != "n_estimators"},
            "objective": objective,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
            # Bins are made from a sample of rows by default; which would then depend on how many rows there are.
            "bin_construct_sample_cnt": max(200_000, min(len(matrix), 2_000_000)),
        }
        if objective == "multiclass" and self.classes_ is not None:
            params["num_class"] = len(self.classes_)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data = lightgbm.Dataset(matrix, target, params=params, free_raw_data=True)
            self.booster = lightgbm.train(params, data, num_boost_round=rounds)
        return self

    def predict_proba(self, matrix: Any) -> Any:
        import numpy as np

        raw = self.booster.predict(matrix, num_threads=1)
        return raw if raw.ndim == 2 else np.stack([1.0 - raw, raw], axis=1)

    def predict(self, matrix: Any) -> Any:
        return self.booster.predict(matrix, num_threads=1)


def _tree(root: dict[str, Any], first: int) -> Tree:
    """Number a tree's nodes from its root on."""
    import numpy as np

    queue = [root]
    rows = []
    for node in queue:  # grows while it is read
        if "leaf_value" in node:
            rows.append((0, 0.0, 0, 0, False, True, node["leaf_value"]))
            continue
        if node["decision_type"] != "<=":
            raise ValueError(f"a split by {node['decision_type']} cannot be exported")
        rows.append(
            (node["split_feature"], node["threshold"], len(queue), len(queue) + 1, _missing_left(node), False, 0.0)
        )
        queue += [node["left_child"], node["right_child"]]
    feature, threshold, left, right, missing_left, leaf, value = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    return Tree(feature, threshold, left, right, missing_left, leaf, value[:, None], first)


def _missing_left(node: dict[str, Any]) -> bool:
    """Whether a missing value goes left; where none was seen LightGBM reads it as zero."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    return bool(node["threshold"] >= 0)
