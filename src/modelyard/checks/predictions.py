"""Read a table of predictions into arrays; the only place that knows its columns.

One row a test row:

| column | holds |
| --- | --- |
| `truth` | the true value of the target |
| `prediction` | the class or number that was answered |
| `probability.CLASS` | for a classifier: the probability of each class of the problem |
| any other | a column that was kept, so that groups can be told apart |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import DataError
from modelyard.records import Problem

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from modelyard.checks.metrics import Metric

    Array = np.ndarray[Any, Any]

__all__ = [
    "PREDICTION",
    "PROBABILITY",
    "TRUTH",
    "Predicted",
    "class_codes",
    "frame_of",
    "predicted_from",
    "read_predictions",
]

TRUTH = "truth"
PREDICTION = "prediction"
# Followed by the class.
PROBABILITY = "probability."


@dataclass(frozen=True)
class Predicted:
    """Predictions as arrays, in the form that `checks.metrics` takes.

    Attributes:
        problem: What was learned.
        truth: True classes as positions (binary: 1 is the positive class), or true numbers.
        labels: Predicted classes in the same form; for regression the predicted numbers.
        scores: Probability of the positive class, or rows x classes; for regression the predicted numbers.
        classes: The classes in the order of their positions; empty for regression.
        columns: The columns that were kept.
    """

    problem: Problem
    truth: Array
    labels: Array
    scores: Array
    classes: tuple[str, ...]
    columns: pl.DataFrame

    def __len__(self) -> int:
        return len(self.truth)

    def guess(self, metric: Metric) -> Array:
        """Return what a metric compares the truth with."""
        return self.labels if metric.needs == "labels" else self.scores

    def where(self, rows: Array) -> Predicted:
        """Return some of the rows, chosen by a mask or by position; the kept columns are left out."""
        return Predicted(
            self.problem,
            self.truth[rows],
            self.labels[rows],
            self.scores[rows],
            self.classes,
            self.columns.clear(),
        )


def frame_of(table: pl.LazyFrame | pl.DataFrame) -> pl.DataFrame:
    """Return a table as an eager frame."""
    import polars as pl

    return table.collect() if isinstance(table, pl.LazyFrame) else table


def read_predictions(table: pl.LazyFrame | pl.DataFrame, problem: Problem, *, keep: Sequence[str] = ()) -> Predicted:
    """Read a table of predictions.

    Args:
        table: The table.
        problem: What was learned.
        keep: Kept columns that the caller needs.

    Raises:
        DataError: A column is missing (`predictions-column`), a value is missing or not finite
            (`predictions-value`), or a class is none of the problem's (`predictions-class`).
    """
    frame = frame_of(table)
    numbers = [] if problem.task == "regression" else [f"{PROBABILITY}{c}" for c in problem.classes]
    needed = [TRUTH, PREDICTION, *numbers]
    for name in (*needed, *keep):
        if name not in frame.columns:
            raise DataError(
                "predictions-column",
                f"the predictions have no column `{name}`",
                hint=f"they have: {', '.join(frame.columns[:12])}",
            )
    kept = frame.select(c for c in frame.columns if c not in needed)
    if problem.task == "regression":
        truth, values = _numbers(frame, TRUTH), _numbers(frame, PREDICTION)
        return Predicted(problem, truth, values, values, (), kept)
    classes = _ordered(problem)
    truth, labels = (class_codes(frame[name], classes) for name in (TRUTH, PREDICTION))
    return Predicted(problem, truth, labels, _scores(frame, problem, classes), classes, kept)


def predicted_from(
    problem: Problem, truths: Sequence[Any], answers: Sequence[Any], probabilities: Sequence[Mapping[str, float]]
) -> Predicted:
    """Return predictions that come one by one, as a server answers them.

    Args:
        problem: What was learned.
        truths: True value of each row.
        answers: What was predicted for it.
        probabilities: For a classifier the probability of each class, by class.
    """
    import polars as pl

    if problem.task == "regression":
        columns = {TRUTH: [float(t) for t in truths], PREDICTION: [float(a) for a in answers]}
        return read_predictions(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Float64)), problem)
    from modelyard.inference.encode import as_text

    named = {TRUTH: [as_text(t) for t in truths], PREDICTION: [as_text(a) for a in answers]}
    scored = {f"{PROBABILITY}{c}": [float(row.get(c, 0.0)) for row in probabilities] for c in problem.classes}
    schema = {**dict.fromkeys(named, pl.String), **dict.fromkeys(scored, pl.Float64)}
    return read_predictions(pl.DataFrame({**named, **scored}, schema=schema), problem)


def _ordered(problem: Problem) -> tuple[str, ...]:
    """Return the classes in the order of their positions: of two, the positive one comes last."""
    if problem.task != "binary":
        return problem.classes
    return (*(c for c in problem.classes if c != problem.positive), problem.positive)


def _scores(frame: pl.DataFrame, problem: Problem, classes: tuple[str, ...]) -> Array:
    import numpy as np

    if problem.task == "binary":
        return _numbers(frame, f"{PROBABILITY}{problem.positive}")
    return np.column_stack([_numbers(frame, f"{PROBABILITY}{c}") for c in classes])


def _numbers(frame: pl.DataFrame, name: str) -> Array:
    import numpy as np
    import polars as pl

    # A float32 stays one: its rounding decides where a logarithm is clipped.
    column = frame[name]
    values = column.to_numpy() if column.dtype == pl.Float32 else column.cast(pl.Float64).to_numpy()
    bad = ~np.isfinite(values)
    if column.null_count() or bad.any():
        raise DataError(
            "predictions-value",
            f"column `{name}` of the predictions has {max(int(bad.sum()), column.null_count()):,} values that are "
            "missing or not finite",
            hint="a model must answer every row with a number",
        )
    return values


def class_codes(column: pl.Series, classes: Sequence[str]) -> Array:
    """Return the position in `classes` of each value, whatever type the column has.

    Raises:
        DataError: A value is missing or is none of the classes.
    """
    import polars as pl

    from modelyard.inference.encode import as_text

    place = {name: at for at, name in enumerate(classes)}
    seen = column.unique(maintain_order=True).to_list()
    strange = [value for value in seen if as_text(value) not in place]
    if strange:
        what = "missing values" if strange[0] is None else f"the value `{as_text(strange[0])}`"
        raise DataError(
            "predictions-class",
            f"column `{column.name}` has {what}, which is none of the classes {', '.join(f'`{c}`' for c in classes)}",
            hint="a row is judged only if its truth is one of the classes that were learned",
        )
    codes = [place[as_text(value)] for value in seen]
    return column.replace_strict(seen, codes, return_dtype=pl.Int64).to_numpy()
