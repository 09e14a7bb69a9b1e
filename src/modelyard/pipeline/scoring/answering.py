"""Put the model's answer beside the rows: `prediction`, and for a classifier one `probability.CLASS` each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from modelyard._kit.errors import DataError
from modelyard.inference import Bundle, picked
from modelyard.records import Problem

if TYPE_CHECKING:
    import polars as pl

    from modelyard.inference import Predictor

__all__ = ["answer", "answer_columns", "check_columns"]

# Rows answered at once: large enough to be fast, small enough to stay in the cache.
_ROWS = 16_384


def answer_columns(problem: Problem) -> list[str]:
    """Return the names of the columns that an answer adds."""
    shares = [] if problem.task == "regression" else [f"probability.{c}" for c in problem.classes]
    return ["prediction", *shares]


def check_columns(columns: Collection[str], bundle: Bundle) -> None:
    """Refuse rows that lack a column of the model, or have one that the answer adds, before any of them is read.

    Raises:
        DataError: There is one (`predict-column-taken`).
        ModelError: One is missing (`model-column-missing`).
    """
    for name in answer_columns(bundle.signature.problem):
        if name in columns:
            raise DataError(
                "predict-column-taken",
                f"the rows have a column `{name}` already, which the answer would replace",
                where=name,
                hint="rename it, or take it out",
            )
    # Of no row at all, the encoder says what is missing.
    bundle.encode({column: [] for column in columns})


def answer(frame: pl.DataFrame, bundle: Bundle, predictor: Predictor) -> pl.DataFrame:
    """Return the rows with the model's answer beside them.

    Args:
        frame: Rows with every column of the model.
        bundle: The model's bundle.
        predictor: Its predictor.
    """
    import numpy as np
    import polars as pl

    problem = bundle.signature.problem
    names = answer_columns(problem)
    features = [f.name for f in bundle.signature.features]
    outputs = [
        predictor.predict(bundle.encode({c: _values(part[c]) for c in features}))
        for part in frame.select(features).iter_slices(_ROWS)
        if part.height
    ]
    output = np.concatenate(outputs) if outputs else np.empty((0, max(1, len(problem.classes))), np.float32)
    if problem.task == "regression":
        return frame.with_columns(pl.Series("prediction", output[:, 0]))
    labels = list(bundle.labels or problem.classes)
    chosen = pl.Series("prediction", labels).gather(picked(output, problem))
    shares = [pl.Series(name, output[:, at]) for at, name in enumerate(names[1:])]
    return frame.with_columns(chosen, *shares)


def _values(series: pl.Series) -> Sequence[object] | pl.Series:
    """Return text as a list: one value after the other comes faster out of it."""
    import polars as pl

    return series.to_list() if series.dtype == pl.String else series
