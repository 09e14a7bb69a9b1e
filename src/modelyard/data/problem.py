"""What is to be learned, read off the target column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard._kit.errors import DataError, near
from modelyard._kit.text import number, plural
from modelyard.inference.encode import as_text
from modelyard.records import Problem

if TYPE_CHECKING:
    import polars as pl

__all__ = ["label_texts", "problem_of"]

# A whole number with more values than this is a quantity, with fewer a code.
_MOST_CODES = 20
_METRICS = {"binary": "roc_auc", "multiclass": "balanced_accuracy", "regression": "rmse"}


def problem_of(frame: pl.DataFrame, *, target: str, task: str = "", positive: str = "", metric: str = "") -> Problem:
    """Return the problem that a target column poses.

    Args:
        frame: The rows.
        target: The column.
        task: `binary`, `multiclass` or `regression`; empty or `auto` reads it off: text, truth values and whole
            numbers (kept as floats or not) with at most 20 values are classes.
        positive: The class whose probability is the score of a binary problem; empty takes the last by name.
        metric: Metric that selects the model; empty takes the usual one.

    Raises:
        DataError: The target is not there (`data-target-missing`), has missing values (`data-target-null`), one
            class (`data-one-class`), or does not fit `task` or `positive` (`data-task`).
    """
    values = _target(frame, target)
    classes: tuple[str, ...] = ()
    if task == "regression" or (task in ("", "auto") and not _is_classes(values)):
        if not values.dtype.is_numeric():
            raise _unfit(target, f"holds {values.dtype}, no numbers, and cannot be a quantity", "set `task: binary`")
        if not values.is_finite().all():
            raise _unfit(target, "holds infinite values", "leave these rows out in `features`")
        return Problem(task="regression", target=target, metric=metric or _METRICS["regression"])
    classes = tuple(sorted(label_texts(values).unique().to_list()))
    if len(classes) < 2:
        raise DataError(
            "data-one-class",
            f"every row has the target `{target}` = `{classes[0]}`, so there is nothing to tell apart",
            where="model.target",
            hint="add rows of another class",
        )
    if task == "binary" and len(classes) > 2:
        raise _unfit(target, f"has {len(classes)} classes ({_some(classes)}), not two", "set `task: multiclass`")
    kind = "binary" if len(classes) == 2 and task != "multiclass" else "multiclass"
    if positive and positive not in classes:
        close = near(positive, classes)
        hint = f"did you mean `{close[0]}`?" if close else f"it has {_some(classes)}"
        raise DataError("data-task", f"`{target}` has no class `{positive}`", where="model.positive", hint=hint)
    chosen = (positive or classes[-1]) if kind == "binary" else ""
    return Problem(
        task="binary" if kind == "binary" else "multiclass",
        target=target,
        classes=classes,
        positive=chosen,
        metric=metric or _METRICS[kind],
    )


def _target(frame: pl.DataFrame, target: str) -> pl.Series:
    if target not in frame.columns:
        close = near(target, frame.columns)
        raise DataError(
            "data-target-missing",
            f"there is no column `{target}` to predict",
            where="model.target",
            hint=f"did you mean `{close[0]}`?" if close else f"there are {_some(frame.columns)}",
        )
    values = frame[target]
    if values.dtype.is_float():
        values = values.fill_nan(None)
    gone = values.null_count()
    if gone:
        raise DataError(
            "data-target-null",
            f"the target `{target}` is missing in {number(gone)} of {plural(frame.height, 'row')}",
            where="model.target",
            hint=f"set them aside by the contract, `{target}: {{nullable: false}}`, or leave them out in `features`",
        )
    return values


def _is_classes(values: pl.Series) -> bool:
    from modelyard.data.types import type_of

    kind = type_of(values.dtype)
    if kind in ("text", "bool"):
        return True
    if kind not in ("int", "float") or values.n_unique() > _MOST_CODES:
        return False
    # Whole numbers with gaps arrive as floats.
    return kind == "int" or bool((values.is_finite() & (values == values.floor())).all())


def label_texts(values: pl.Series) -> pl.Series:
    """Return the labels of a target as text: the same that training, evaluation and serving make of its values."""
    import polars as pl

    if values.dtype == pl.String:
        return values
    known = values.unique()
    texts = [as_text(value) for value in known.to_list()]
    return values.replace_strict(known, pl.Series(texts, dtype=pl.String), return_dtype=pl.String)


def _unfit(target: str, what: str, hint: str) -> DataError:
    return DataError("data-task", f"the target `{target}` {what}", where="model.task", hint=hint)


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(f"`{n}`" for n in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
