"""A training table as arrays: what the model takes, and the target as numbers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import ModelError, near
from modelyard.inference.encode import Encoder, Feeds, as_text
from modelyard.records import Feature, Problem, Signature

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]
    Frame = pl.LazyFrame | pl.DataFrame

__all__ = ["Dataset", "collected", "columns_of", "dataset", "encode_target", "infer_signature"]


_MOST_CATEGORIES = 1000


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows ready to learn from.

    Attributes:
        feeds: Input name -> array, see `modelyard.inference.encode`.
        target: Position of the class, or the number itself.
        signature: What the model takes and answers.
        frame: The table they were made of.
    """

    feeds: Feeds
    target: Array
    signature: Signature
    frame: pl.DataFrame

    def __len__(self) -> int:
        return len(self.target)

    @property
    def problem(self) -> Problem:
        """What is learned."""
        return self.signature.problem

    def take(self, rows: Array) -> Dataset:
        """Return some of the rows, by position."""
        feeds = {name: value[rows] for name, value in self.feeds.items()}
        return Dataset(feeds, self.target[rows], self.signature, self.frame[rows])

    @property
    def digest(self) -> str:
        """Digest of the rows in their order, as the model sees them."""
        import hashlib

        h = hashlib.sha256(self.target.tobytes())
        if "numeric" in self.feeds:
            h.update(self.feeds["numeric"].tobytes())
        if "categorical" in self.feeds:
            h.update(digest_of(self.feeds["categorical"].tolist()).encode())
        return h.hexdigest()


def dataset(
    frame: Frame, problem: Problem, *, drop: Collection[str] = (), signature: Signature | None = None
) -> Dataset:
    """Make a dataset of a table.

    Args:
        frame: The table.
        problem: What is learned.
        drop: Columns that are not features.
        signature: What an existing model takes; inferred from the table where not given.

    Raises:
        ModelError: There is nothing to learn from, or the target does not fit the problem.
    """
    table = collected(frame)
    if not table.height:
        raise ModelError("model-no-rows", "the training table has no rows", hint="load data first")
    signature = signature or infer_signature(table, problem, drop=drop)
    feeds = Encoder(signature)(columns_of(table, [f.name for f in signature.features], signature))
    return Dataset(feeds, encode_target(table, problem), signature, table)


def collected(frame: Frame) -> pl.DataFrame:
    """Return a table as an eager frame."""
    import polars as pl

    return frame.collect() if isinstance(frame, pl.LazyFrame) else frame


def infer_signature(table: pl.DataFrame, problem: Problem, *, drop: Collection[str] = ()) -> Signature:
    """Return what a model of this table takes: numbers and booleans as numbers, text as categories.

    Raises:
        ModelError: A column has another type (`model-column-type`), or none is left (`model-no-features`).
    """
    features = [
        _feature(table[name]) for name in table.columns if name != problem.target and name not in frozenset(drop)
    ]
    if not features:
        raise ModelError(
            "model-no-features",
            "no column is left to learn from",
            hint=f"the table has {', '.join(table.columns[:8])}; take fewer of them out with `drop`",
        )
    return Signature(features=tuple(features), problem=problem)


def _feature(column: pl.Series) -> Feature:
    import polars as pl

    name, kind = column.name, column.dtype
    if kind.is_numeric() or kind == pl.Boolean or kind == pl.Null:
        wide = column.cast(pl.Float64)
        seen = wide.filter(wide.is_finite())  # drops nulls as well
        low, high = seen.min(), seen.max()
        return Feature(
            name=name,
            type="number",
            source=str(kind),
            # Every family fills or routes a missing value, whether or not it saw one.
            nullable=True,
            low=None if low is None else float(low),  # type: ignore[arg-type]
            high=None if high is None else float(high),  # type: ignore[arg-type]
        )
    if kind == pl.String or kind in (pl.Categorical, pl.Enum):
        values = sorted(str(v) for v in column.drop_nulls().unique().to_list())
        source = "String" if kind == pl.String else "Categorical"
        # Of a free text no list is kept: it would fill the bundle, and nearly every new value is unseen anyway.
        listed = tuple(values) if len(values) <= _MOST_CATEGORIES else ()
        return Feature(name=name, type="category", source=source, nullable=True, categories=listed)
    raise ModelError(
        "model-column-type",
        f"column `{name}` has the type {kind}, which no family takes",
        where=name,
        hint=f"make a number or a text of it in your features, or leave it out with `drop: [{name}]`",
    )


def columns_of(table: pl.DataFrame, names: Sequence[str], signature: Signature) -> dict[str, Any]:
    """Return columns as the encoder takes them: numbers as float64 arrays, categories as lists.

    Raises:
        ModelError: A column is missing, or does not hold what it held in training.
    """
    import polars as pl

    kinds = {f.name: f.type for f in signature.features}
    found: dict[str, Any] = {}
    for name in names:
        if name not in table.columns:
            close = near(name, table.columns)
            raise ModelError(
                "model-column-missing",
                f"the model takes a column `{name}`, which the table does not have",
                where=name,
                hint=f"did you mean `{close[0]}`?" if close else f"the table has {', '.join(table.columns[:8])}",
            )
        column = table[name]
        if kinds[name] == "number" and (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            found[name] = column.cast(pl.Float64).to_numpy()
        else:
            found[name] = column.to_list()
    return found


def encode_target(table: pl.DataFrame, problem: Problem) -> Array:
    """Return the target as numbers: the position of the class, or the number itself.

    Raises:
        ModelError: The target is missing (`model-no-target`), has gaps (`model-target-missing`), holds a class that
            the problem does not know (`model-class-unknown`), or is no number (`model-target-type`).
    """
    import numpy as np
    import polars as pl

    name = problem.target
    if name not in table.columns:
        close = near(name, table.columns)
        raise ModelError(
            "model-no-target",
            f"the table has no column `{name}` to learn",
            where=name,
            hint=f"did you mean `{close[0]}`?" if close else f"the table has {', '.join(table.columns[:8])}",
        )
    column = table[name]
    if problem.task != "regression":
        return _positions([as_text(v) for v in column.to_list()], problem)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise ModelError(
            "model-target-type",
            f"target `{name}` has the type {column.dtype}, and a regression needs numbers",
            where=name,
            hint="set `task: multiclass`, or make the column a number",
        )
    target = column.cast(pl.Float64).to_numpy()
    _whole(int((~np.isfinite(target)).sum()), name)
    return target


def _positions(texts: list[str], problem: Problem) -> Array:
    import numpy as np

    known = {c: at for at, c in enumerate(problem.classes)}
    found = [known.get(text, -1) for text in texts]
    strange = sorted({text for text, at in zip(texts, found, strict=True) if at < 0} - {""})
    if strange:
        raise ModelError(
            "model-class-unknown",
            f"target `{problem.target}` holds `{strange[0]}`, which is not one of its classes",
            where=problem.target,
            hint=f"the classes are: {', '.join(problem.classes[:8])}",
        )
    if "" not in known:
        _whole(texts.count(""), problem.target)
    return np.array(found, np.int64)


def _whole(gaps: int, name: str) -> None:
    if gaps:
        raise ModelError(
            "model-target-missing",
            f"target `{name}` is missing in {gaps:,} rows",
            where=name,
            hint="leave these rows out in your features, or forbid them in the contract of the table",
        )
