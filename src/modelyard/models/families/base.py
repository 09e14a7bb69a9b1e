"""What a family of models is: a space of settings, an estimator, its price and its way out to ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from modelyard.models.boosted import Boosted
from modelyard.models.graph import Graph
from modelyard.models.prepare import Style
from modelyard.records import Task

__all__ = ["NODE", "Family", "Setting"]

# Price of visiting one node of a tree, in multiply-adds: a comparison and a jump to memory that is not at hand.
NODE = 4.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that is searched.

    Attributes:
        name: Its name in the estimator.
        low: Smallest value.
        high: Largest value.
        log: Search its magnitude rather than its value.
        whole: It is an integer.
    """

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False


class Family(Protocol):
    """A family of models.

    Attributes:
        name: Its name in the file.
        tasks: Problems it can learn.
        rank: Place among the families by the usual price of one prediction, 0 is the cheapest.
        style: How it wants its matrix.
    """

    name: str
    tasks: tuple[Task, ...]
    rank: int
    style: Style

    def defaults(self, task: Task, rows: int) -> dict[str, Any]:
        """Return good settings for a start; they are the first trial."""
        ...

    def lighter(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return settings that rank as these do and fit sooner; the search compares with them."""
        ...

    def space(self, task: Task, rows: int) -> tuple[Setting, ...]:
        """Return the settings that are searched."""
        ...

    def build(self, params: dict[str, Any], task: Task, seed: int) -> Any:
        """Return an unfitted estimator of the scikit-learn kind, on one thread.

        It takes a float32 matrix, and for a classification whole numbers from 0 on.
        """
        ...

    def cost(self, fitted: Any, width: int) -> float:
        """Return the price of one prediction in multiply-adds, counted from the fitted size, never timed.

        Args:
            fitted: The fitted estimator.
            width: Columns of its matrix.
        """
        ...

    def export(self, fitted: Any, graph: Graph, matrix: str, output: str) -> Boosted | None:
        """Add the estimator to a graph, and return its trees if it sums trees whose leaves hold one number.

        Args:
            fitted: The fitted estimator.
            graph: The graph.
            matrix: Name of what it takes there.
            output: Name to give to its answer: probabilities, rows x classes, or rows x 1.

        Raises:
            ValueError: It cannot be said in ONNX.
        """
        ...

    def native(self, fitted: Any) -> tuple[str, bytes] | None:
        """Return format and bytes that serve it without ONNX, or none where there is no safe way."""
        ...
