"""The steps of a plan that belong to data: plain functions of values to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import DataError, near
from modelyard.data.base import Item
from modelyard.data.contract import hold
from modelyard.data.features import build
from modelyard.data.guard import guard
from modelyard.data.loading import load_new
from modelyard.data.problem import label_texts, problem_of
from modelyard.data.splits import by_group, by_hash, by_time
from modelyard.records import CheckResult, Problem, TableVersion

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from modelyard.store.base import Appended

__all__ = ["contract", "features", "guard", "load", "split"]

# Fewer rows than these divide into nothing that a number could be trusted of.
_FEWEST = 10


def load(
    *,
    source: dict[str, Any],
    state: dict[str, Any],
    types: dict[str, str] | None = None,
    previous: TableVersion | None = None,
) -> Appended:
    """Read what is new in a source; see `modelyard.data.loading`.

    Args:
        source: The declaration of the table without its contract: `from`, `key`, `cursor`, `delimiter`, ...
        state: What `modelyard.data.sources:probe` saw.
        types: Declared types, by column.
        previous: The table as it was loaded last; its parts are not read again.

    Raises:
        DataError: A file cannot be read, or a column of the table is not in it.
    """
    items = [Item(f["path"], f["size"], f["sha256"]) for f in state["files"]]
    return load_new(source, types or {}, items, Path(state["unkeyed"]["root"]), previous)


def contract(
    *,
    table: pl.LazyFrame | pl.DataFrame,
    name: str,
    rules: Mapping[str, Mapping[str, Any]],
    key: Sequence[str] = (),
    cursor: str | None = None,
    bad_rows: str = "stop",
) -> tuple[pl.LazyFrame, pl.DataFrame, list[CheckResult]]:
    """Hold a loaded table against its contract; see `modelyard.data.contract`.

    Args:
        table: The loaded rows, newest by key.
        name: Name of the table.
        rules: Column -> rules.
        key: Key columns.
        cursor: Column of time.
        bad_rows: `stop` or `quarantine`.

    Returns:
        Good rows, bad rows with `_reasons`, and one result a rule.

    Raises:
        DataError: Rows are bad, and all of them or `bad_rows` says `stop`.
    """
    return hold(table, name=name, rules=rules, key=tuple(key), cursor=cursor or "", bad_rows=bad_rows)


def features(
    *,
    tables: Sequence[pl.LazyFrame | pl.DataFrame],
    names: Sequence[str],
    function: str = "",
    state: dict[str, Any],
) -> pl.LazyFrame | pl.DataFrame:
    """Make the rows to learn from; without a function, a single table as it is.

    Args:
        tables: Accepted rows of each table.
        names: Names of the tables, in the same order.
        function: `FILE.py:FUNCTION`: takes a dict of narwhals frames by name, returns a frame.
        state: What `modelyard.data.features:features_probe` saw.

    Raises:
        DataError: The user's code failed (`features-failed`) or is not there (`features-missing`).
    """
    return build(function, tables, names, Path(state["unkeyed"]["root"]))


def split(
    *,
    table: pl.LazyFrame | pl.DataFrame,
    target: str,
    metric: str = "",
    task: str = "",
    positive: str = "",
    by: str = "random",
    test: float = 0.2,
    column: str | None = None,
    seed: int = 0,
    keys: Sequence[Sequence[str]] = (),
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    sources: list[TableVersion] | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame, Problem]:
    """Divide rows into training and test, and say what is to be learned.

    Args:
        table: The rows.
        target: Column to predict.
        metric: Metric that selects the model; empty takes the usual one of the task.
        task: `binary`, `multiclass`, `regression`; empty or `auto` reads it off the target.
        positive: Class whose probability is the score of a binary problem; empty takes the last by name.
        by: `random` (each class alike), `time` (the newest rows are the test) or `group` (whole groups).
        test: Share of the rows for the test.
        column: Column of the time or the group.
        seed: Seed of a random or group split.
        keep: Columns that checks and the card will ask for: better missed here than after the training.
        keys: Key columns of each table; rows that any of them ties together stand on one side. A key of which the
            table does not have all columns (any more) is left out.
        drop: Columns that the user takes from the model: a name that is misspelt would leave one in.
        sources: Tables that the rows were made of: a column of theirs that the features took away is no mistake.

    Returns:
        Training rows, test rows, in the order of the table, and the problem.

    Raises:
        DataError: The target cannot be learned, or the rows cannot be divided.
    """
    import polars as pl

    frame = table.lazy().collect(engine="streaming")
    for name in keep:
        if name not in frame.columns:
            close = near(name, frame.columns)
            raise DataError(
                "data-column-missing",
                f"there is no column `{name}` to compare groups by",
                where="checks.gap.across, card.factors",
                hint=f"did you mean `{close[0]}`?" if close else f"there are {', '.join(frame.columns[:8])}",
            )
    taken_away = {column.name for source in sources or () for column in source.columns}
    for index, name in enumerate(drop):
        if name not in frame.columns and name not in taken_away:
            close = near(name, frame.columns)
            raise DataError(
                "data-column-missing",
                f"`drop` names `{name}`, which is no column of the model's table",
                where=f"model.drop.{index}",
                hint=f"did you mean `{close[0]}`?" if close else f"there are {', '.join(frame.columns[:8])}",
            )
    problem = problem_of(frame, target=target, task=task, positive=positive, metric=metric)
    if frame.height < _FEWEST:
        raise DataError(
            "data-too-few-rows",
            f"{frame.height} rows are too few to train and test on; {_FEWEST} are the least",
            where="data",
            hint="add rows",
        )
    if by != "random" and (not column or column not in frame.columns):
        raise DataError(
            "data-split",
            f"there is no column `{column or ''}` to split by",
            where="model.split.column",
            hint=f"there are {', '.join(f'`{c}`' for c in frame.columns[:8])}",
        )
    if by == "time":
        chosen = by_time(frame, column=str(column), keys=keys, test=test)
    elif by == "group":
        chosen = by_group(frame, column=str(column), keys=keys, test=test, seed=seed)
    else:
        chosen = by_hash(frame, keys=keys, strata=_strata(frame, problem), test=test, seed=seed)
    mask = pl.Series(chosen)
    train, held = frame.filter(~mask), frame.filter(mask)
    _check_sides(train, held, problem)
    return train, held, problem


def _strata(frame: pl.DataFrame, problem: Problem) -> np.ndarray[Any, Any] | None:
    import polars as pl

    if not problem.classes:
        return None
    codes = label_texts(frame[problem.target]).rank("dense").cast(pl.Int64)
    return codes.to_numpy()


def _check_sides(train: pl.DataFrame, test: pl.DataFrame, problem: Problem) -> None:
    """Each class has to be learned, and more than one of them tested."""
    if not train.height or not test.height:
        raise DataError("data-split", "one side has no rows", where="model.split", hint="ask for another share")
    if not problem.classes:
        return
    seen = [set(label_texts(side[problem.target]).unique().to_list()) for side in (train, test)]
    rare = [c for c in problem.classes if c not in seen[0]]
    if rare or (problem.task == "binary" and len(seen[1]) < 2):
        which, side = (rare[0], "training") if rare else (next(iter(set(problem.classes) - seen[1])), "test")
        raise DataError(
            "data-rare-class",
            f"no row of class `{which}` of `{problem.target}` is among the {side} rows",
            where="model.split",
            hint="add rows of this class, or split so that each side has some",
        )
