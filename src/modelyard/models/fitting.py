"""Fit one estimator and ask it: the few lines that the search, the final training and the repeats share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.inference.encode import Feeds
from modelyard.models.families import Family
from modelyard.models.prepare import Preparation, learn
from modelyard.records import Problem

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Fitted", "answer", "fit", "fit_estimator", "one_thread"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A family's estimator with the preparation in front of it.

    Attributes:
        family: The family.
        problem: What was learned.
        preparation: Feeds to matrix.
        estimator: Matrix to answer.
    """

    family: Family
    problem: Problem
    preparation: Preparation
    estimator: Any

    def predict(self, feeds: Feeds) -> Array:
        """Answer as the trained estimator itself does: the truth an export is held to."""
        with one_thread():
            return answer(self.estimator, self.preparation.transform(feeds), self.problem)

    @property
    def cost(self) -> float:
        """Price of one prediction in multiply-adds."""
        return self.family.cost(self.estimator, self.preparation.width)


def fit(family: Family, params: dict[str, Any], feeds: Feeds, target: Array, problem: Problem, seed: int) -> Fitted:
    """Learn preparation and estimator from rows; equal rows, settings and seed give an equal model."""
    preparation = learn(feeds, family.style)
    estimator = fit_estimator(family, params, preparation.transform(feeds), target, problem, seed)
    return Fitted(family, problem, preparation, estimator)


def fit_estimator(
    family: Family, params: dict[str, Any], matrix: Array, target: Array, problem: Problem, seed: int
) -> Any:
    """Fit an estimator on a matrix, on one thread and without the library's talk."""
    estimator = family.build(params, problem.task, seed)
    with one_thread(), warnings.catch_warnings():
        # That a solver stopped on its iterations shows in the score; a warning would tell nobody.
        warnings.simplefilter("ignore")
        estimator.fit(matrix, target)
    return estimator


def answer(estimator: Any, matrix: Array, problem: Problem) -> Array:
    """Return probabilities, rows x classes of the problem, or predictions as one column."""
    import numpy as np

    if problem.task == "regression":
        return np.asarray(estimator.predict(matrix)).reshape(len(matrix), 1)
    raw = estimator.predict_proba(matrix)
    if raw.shape[1] == len(problem.classes):
        return raw
    # A fold may hold no row of a rare class; what was never seen has no probability.
    whole = np.zeros((len(matrix), len(problem.classes)), raw.dtype)
    whole[:, np.asarray(estimator.classes_, np.int64)] = raw
    return whole


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the libraries to one thread: families run side by side, and a sum in one order is the same everywhere."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
