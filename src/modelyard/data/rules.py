"""The rules of a contract as expressions: each says of every row whether it breaks the rule."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import DataError, near
from modelyard.data.base import COPY, FILE, PROVENANCE, RAW
from modelyard.data.readers import BROKEN
from modelyard.data.types import NAMES, dtype_of, read_as, type_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TEXT", "Rule", "Typed", "data_columns", "first_good", "rules_of", "typed_columns"]

# Where the text of a broken line stands while the bad rows are looked at.
TEXT = "__text"
# Whether a row is good, as far as was judged.
_GOOD = "__modelyard_good"
_KNOWN = ("type", "range", "allowed", "pattern", "unique", "nullable", "max_missing")


@dataclass(frozen=True, slots=True)
class Typed:
    """One column of the table as the contract sees it.

    Attributes:
        name: Its name.
        value: The column as its declared type; missing where it cannot be read as that.
        dtype: Polars type of `value`.
        stored: Polars type of the column itself.
        bad: Whether the value is there and cannot be read.
    """

    name: str
    value: pl.Expr
    dtype: pl.DataType
    stored: pl.DataType
    bad: pl.Expr


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        column: Column it is about; empty for one about whole rows.
        name: `type`, `missing`, `range`, `allowed`, `pattern`, `unique`, `key`, `duplicate` or `cells`.
        broken: Whether a row breaks it; never missing.
        reason: What the quarantine says of such a row.
        shows: Columns that an example of such a row shows.
        params: Settings, plain JSON.
        quiet: Nobody asked for it, so it is told of only where it is broken.
        once: What no second row may have, for a rule that looks at the rows before.
    """

    column: str
    name: str
    broken: pl.Expr
    reason: str
    shows: tuple[str, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    quiet: bool = False
    once: pl.Expr | None = None

    @property
    def title(self) -> str:
        """Name of the rule in its table, e.g. `age.range`."""
        return f"{self.column}.{self.name}" if self.column else self.name


def data_columns(schema: Mapping[str, Any]) -> list[str]:
    """Return the columns of a loaded table without those that say where a row came from."""
    return [name for name in schema if name not in PROVENANCE]


def typed_columns(
    schema: Mapping[str, pl.DataType], rules: Mapping[str, Mapping[str, Any]], table: str
) -> dict[str, Typed]:
    """Return every column of the table as its declared type, or as it is.

    Raises:
        DataError: A column of the contract is not there (`data-column-missing`).
    """
    import polars as pl

    columns = data_columns(schema)
    for name in rules:
        if name not in columns:
            close = near(name, columns)
            hint = f"did you mean `{close[0]}`?" if close else f"it has {', '.join(f'`{c}`' for c in columns[:8])}"
            raise DataError(
                "data-column-missing",
                f"`{table}` has no column `{name}`, which its contract names",
                where=f"data.{table}.contract.{name}",
                hint=hint,
            )
    found = {}
    for name in columns:
        stored = schema[name]
        kind = rules.get(name, {}).get("type") or ""
        value = read_as(name, stored, kind)
        dtype = dtype_of(kind) if kind else stored
        there = pl.col(name).is_not_nan() if stored.is_float() else pl.col(name).is_not_null()
        bad = (value.is_null() & there) if kind and dtype != stored else pl.lit(False)
        if RAW in schema:
            # JSON escapes the quotes inside a value, so this can only be the name of a column.
            mark = f'{json.dumps(name, ensure_ascii=False)}:"'
            bad = bad | pl.col(RAW).str.contains(mark, literal=True).fill_null(False)
        found[name] = Typed(name, value, dtype, stored, bad.fill_null(False))
    return found


def rules_of(
    columns: Mapping[str, Typed],
    rules: Mapping[str, Mapping[str, Any]],
    *,
    table: str,
    key: Sequence[str],
    cursor: str,
    provenance: Sequence[str],
) -> list[Rule]:
    """Return everything that a row can break, the rules of whole rows first.

    Args:
        columns: From `typed_columns`.
        rules: The contract: column -> settings.
        table: Name of the table, for errors.
        key: Key columns.
        cursor: Column of time; empty for none.
        provenance: Which of `PROVENANCE` the table has.

    Raises:
        DataError: A rule cannot be applied to its column (`data-rule`), or the key is not there.
    """
    found = _whole_rows(columns, table, key, cursor, provenance)
    for name, column in columns.items():
        kind = rules.get(name, {}).get("type")
        if kind:
            found.append(Rule(name, "type", column.bad, f"{name}: not {NAMES[kind]}", (name,), {"type": kind}))
        elif RAW in provenance and type_of(column.dtype) not in ("", "text"):
            reason = f"{name}: not {NAMES[type_of(column.dtype)]}, as it was in the rows before"
            found.append(Rule(name, "type", column.bad, reason, (name,), quiet=True))
    for name, settings in rules.items():
        unknown = next((s for s in settings if s not in _KNOWN), None)
        if unknown is not None:
            raise _wrong(table, name, f"`{unknown}` is no rule", f"there are {', '.join(_KNOWN)}")
        found += _column_rules(columns[name], settings, table)
    return found


def first_good(frame: pl.LazyFrame, rules: Sequence[Rule]) -> tuple[pl.LazyFrame, list[Rule]]:
    """Return the rules so that a row which is bad anyway takes no good one along that has the same key or value.

    Each rule about rows before looks only at those that break no rule about themselves, and no such rule before it.
    It costs further looks at everything, so it is for tables where rows are bad for both reasons.

    Returns:
        The rows with what the rules look at, and the rules.
    """
    import polars as pl

    frame = frame.with_columns((~pl.any_horizontal(pl.lit(False), *_alone(rules))).alias(_GOOD))
    found = []
    for at, rule in enumerate(rules):
        if rule.once is None:
            found.append(rule)
            continue
        counted = pl.col(_GOOD) & rule.once.is_not_null()
        value = pl.when(counted).then(rule.once)
        mark = f"{_GOOD}_{at}"
        # Column by column: as one expression each rule would hold those before it several times.
        frame = frame.with_columns(pl.when(counted).then(~value.is_first_distinct()).otherwise(rule.broken).alias(mark))
        frame = frame.with_columns(pl.col(_GOOD) & ~pl.col(mark))
        found.append(replace(rule, broken=pl.col(mark)))
    return frame, found


def _alone(rules: Sequence[Rule]) -> list[pl.Expr]:
    return [rule.broken for rule in rules if rule.once is None]


def _whole_rows(
    columns: Mapping[str, Typed], table: str, key: Sequence[str], cursor: str, provenance: Sequence[str]
) -> list[Rule]:
    import polars as pl

    found = []
    cells = pl.lit(False)
    if RAW in provenance:
        cells = pl.col(RAW).str.contains(f'"{BROKEN}":"', literal=True).fill_null(False)
        reason = "the line does not have one cell for each column"
        found.append(Rule("", "cells", cells, reason, (TEXT,), quiet=True))
    if not key:
        return found
    for column in [*key, *([cursor] if cursor else [])]:
        if column not in columns:
            raise DataError(
                "data-column-missing",
                f"`{table}` has no column `{column}`, which `{'key' if column in key else 'cursor'}` names",
                where=f"data.{table}",
                hint=_near_hint(column, columns),
            )
    about, shows, params = ", ".join(key), tuple(key), {"key": list(key)}
    # A value that cannot be read is there, but as a key it says nothing.
    missing = pl.any_horizontal(columns[c].value.is_null() for c in key)
    found.append(Rule("", "key", missing & ~cells, f"{about}: a row needs a key", shows, params))
    if cursor:
        undated = columns[cursor].value.is_null() & ~cells
        reason = f"{cursor}: a row needs one to be told from older ones"
        found.append(Rule(cursor, "cursor", undated, reason, (cursor,)))
    once = pl.struct(columns[c].value for c in key)
    if COPY in provenance:
        again = pl.col(COPY) > 0
        # What an older file says of a key does not come back when the newest file has it wrong.
        newest = (pl.col(COPY) == 0).any().over(*key, FILE)
        once = pl.when(newest & (pl.col(COPY) >= 0)).then(pl.struct(once, pl.col(FILE)))
    else:
        again = ~once.is_first_distinct() & ~missing
    reason = f"{about}: the key stands in a row before this one"
    found.append(Rule("", "duplicate", again, reason, shows, params, once=once))
    return found


def _column_rules(column: Typed, settings: Mapping[str, Any], table: str) -> list[Rule]:
    name, value = column.name, column.value
    found = []
    if settings.get("nullable") is False:
        gone = value.is_null() & ~column.bad
        found.append(Rule(name, "missing", gone, f"{name}: missing", (name,)))
    if settings.get("range"):
        found.append(_range(column, settings["range"], table))
    if settings.get("allowed"):
        found.append(_allowed(column, settings["allowed"], table))
    if settings.get("pattern"):
        found.append(_pattern(column, settings["pattern"], table))
    if settings.get("unique"):
        again = ~value.is_first_distinct() & value.is_not_null()
        reason = f"{name}: the value stands in a row before this one"
        found.append(Rule(name, "unique", again, reason, (name,), once=value))
    # A value that is missing breaks no rule about values.
    return [replace(rule, broken=rule.broken.fill_null(False)) for rule in found]


def _range(column: Typed, limits: Sequence[Any], table: str) -> Rule:
    import polars as pl

    kind = type_of(column.dtype)
    if kind not in ("int", "float", "date", "datetime"):
        what = f"`range` needs numbers or dates, and it holds {column.dtype}"
        raise _wrong(table, column.name, what, "declare `type`")
    low, high = limits
    outside = pl.lit(False)
    if low is not None:
        outside = outside | (column.value < _bound(low, kind, column, table))
    if high is not None:
        outside = outside | (column.value > _bound(high, kind, column, table))
    if low is None:
        text = f"above {_shown(high)}"
    else:
        text = f"below {_shown(low)}" if high is None else f"outside {_shown(low)} to {_shown(high)}"
    return Rule(column.name, "range", outside, f"{column.name}: {text}", (column.name,), {"range": [low, high]})


def _shown(limit: Any) -> str:
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)


def _bound(limit: Any, kind: str, column: Typed, table: str) -> pl.Expr:
    import polars as pl

    if kind in ("int", "float"):
        return pl.lit(limit)
    read = pl.DataFrame({"x": [str(limit)]}).select(read_as("x", pl.String(), kind)).item()
    if read is None:
        raise _wrong(table, column.name, f"`{limit}` in `range` is not {NAMES[kind]}", "write it as the column has it")
    return pl.lit(read, column.dtype)


def _allowed(column: Typed, values: Sequence[Any], table: str) -> Rule:
    import polars as pl

    kind = type_of(column.dtype)
    if kind == "text":
        known = pl.Series([str(v) for v in values], dtype=pl.String)
        inside = column.value.cast(pl.String).is_in(known.implode())
    else:
        given = pl.DataFrame({"x": [str(v) for v in values]})
        known = given.select(read_as("x", pl.String(), kind)).to_series()
        if known.null_count():
            odd = values[int(known.is_null().arg_max() or 0)]
            what = f"`{odd}` in `allowed` is not {NAMES[kind]}"
            raise _wrong(table, column.name, what, "give values of the column's type")
        inside = column.value.is_in(known.implode())
    listed = ", ".join(f"`{v}`" for v in values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
    reason = f"{column.name}: not one of {listed}"
    return Rule(column.name, "allowed", ~inside, reason, (column.name,), {"allowed": list(values)})


def _pattern(column: Typed, pattern: str, table: str) -> Rule:
    import polars as pl

    whole = f"^(?:{pattern})$"
    try:
        pl.DataFrame({"x": ["x"]}).select(pl.col("x").str.contains(whole))
    except pl.exceptions.PolarsError as error:
        why = str(error).strip().splitlines()[-1]
        hint = "there is no look-around and no back-reference"
        raise _wrong(table, column.name, f"`{pattern}` is no pattern: {why}", hint) from error
    text = column.value if isinstance(column.dtype, pl.String) else column.value.cast(pl.String)
    reason = f"{column.name}: does not match `{pattern}`"
    return Rule(column.name, "pattern", ~text.str.contains(whole), reason, (column.name,), {"pattern": pattern})


def _near_hint(name: str, columns: Mapping[str, Any]) -> str:
    close = near(name, columns)
    return f"did you mean `{close[0]}`?" if close else f"it has {', '.join(f'`{c}`' for c in list(columns)[:8])}"


def _wrong(table: str, column: str, what: str, hint: str) -> DataError:
    return DataError("data-rule", f"`{column}`: {what}", where=f"data.{table}.contract.{column}", hint=hint)
