"""The linear family: logistic regression for classes, ridge regression for numbers."""

from __future__ import annotations

from typing import Any

from modelyard.models.families.base import Setting
from modelyard.models.graph import Graph
from modelyard.models.prepare import Style
from modelyard.models.safe import skops_bytes
from modelyard.records import Task

__all__ = ["Linear"]


class Linear:
    """Numbers scaled, categories one-hot, one weight each."""

    name = "linear"
    tasks: tuple[Task, ...] = ("binary", "multiclass", "regression")
    rank = 0
    style = Style(scale=True, missing="fill", categories="onehot", most=50)

    def defaults(self, task: Task, rows: int) -> dict[str, Any]:
        """Return the usual strength of regularisation."""
        return {"alpha": 1.0}

    def lighter(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the settings as they are."""
        return params

    def space(self, task: Task, rows: int) -> tuple[Setting, ...]:
        """Search the strength of regularisation."""
        return (Setting("alpha", 1e-3, 1e3, log=True),)

    def build(self, params: dict[str, Any], task: Task, seed: int) -> Any:
        """Return ridge regression, or logistic regression with the same meaning of `alpha`."""
        from sklearn.linear_model import LogisticRegression, Ridge

        if task == "regression":
            return Ridge(alpha=params["alpha"])
        return LogisticRegression(C=1.0 / params["alpha"], max_iter=300)

    def cost(self, fitted: Any, width: int) -> float:
        """One multiply-add a weight."""
        return float(fitted.coef_.size)

    def export(self, fitted: Any, graph: Graph, matrix: str, output: str) -> None:
        """Add one matrix product."""
        import numpy as np

        weights = np.atleast_2d(fitted.coef_).astype(np.float32)
        bias = np.atleast_1d(fitted.intercept_).astype(np.float32)
        inputs = [matrix, graph.constant("weights", weights), graph.constant("bias", bias)]
        raw = graph.add("Gemm", inputs, "raw", transB=1)
        graph.answer(raw, output, "classes" if hasattr(fitted, "classes_") else "regression", len(weights))

    def native(self, fitted: Any) -> tuple[str, bytes] | None:
        """Return it as skops writes it."""
        return "skops", skops_bytes(fitted)
