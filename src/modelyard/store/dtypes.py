"""Which column types a table keeps, how they lie in its files, and back again.

Delta Lake knows no unsigned numbers, no time of day, no durations, no nanoseconds and no time zones but UTC. Such a
column is stored as the type beside it and read back as what it was. Categories become text. Inside lists and structs
only the stored types are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from modelyard._kit.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["kept_type", "restored_type", "stored_type"]

_DATETIME = re.compile(r"Datetime\(time_unit='(ms|us|ns)', time_zone=(?:None|'(.+)')\)")
_DURATION = re.compile(r"Duration\(time_unit='(ms|us|ns)'\)")
# Types that are stored as another and known by their bare name.
_RESTORED = ("UInt8", "UInt16", "UInt32", "UInt64", "Time", "Null")


def kept_type(column: str, dtype: pl.DataType) -> pl.DataType:
    """Return the type that readers of the table see.

    Raises:
        DataError: No table can keep such values.
    """
    import polars as pl

    if isinstance(dtype, pl.Categorical | pl.Enum):
        return pl.String()
    if dtype.is_nested():
        return stored_type(column, dtype)
    stored_type(column, dtype)
    return dtype


def stored_type(column: str, dtype: pl.DataType) -> pl.DataType:
    """Return the type that lies in the files.

    Raises:
        DataError: No table can keep such values.
    """
    import polars as pl

    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(stored_type(column, _instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: stored_type(column, _instance(field.dtype)) for field in dtype.fields})
    if isinstance(dtype, pl.Datetime):
        if dtype.time_unit == "ns":
            # Nanoseconds since 1970 UTC: Delta's microseconds would cut them off.
            return pl.Int64()
        return pl.Datetime("us", "UTC" if dtype.time_zone else None)
    if isinstance(dtype, pl.Decimal | pl.Binary):
        return dtype
    beside = _beside()
    if type(dtype) not in beside:
        raise DataError(
            "data-type-unsupported",
            f"column `{column}` has type `{dtype}`, which no table can keep",
            hint="cast it to text or to a number before it is returned",
        )
    return beside[type(dtype)]


def restored_type(text: str) -> pl.DataType | None:
    """Return the type to cast a stored column to, from the text of its kept type; none if it is read as it lies."""
    import polars as pl

    if found := _DATETIME.fullmatch(text):
        return pl.Datetime(found[1], found[2])  # type: ignore[arg-type]  # the pattern lets only units through
    if found := _DURATION.fullmatch(text):
        return pl.Duration(found[1])  # type: ignore[arg-type]
    if text in _RESTORED:
        restored: pl.DataType = getattr(pl, text)()
        return restored
    return None


def _beside() -> Mapping[type[pl.DataType], pl.DataType]:
    import polars as pl

    same = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Float32, pl.Float64, pl.Boolean, pl.String, pl.Date)
    return {t: t() for t in same} | {
        pl.Categorical: pl.String(),
        pl.Enum: pl.String(),
        pl.Null: pl.String(),
        pl.UInt8: pl.Int16(),
        pl.UInt16: pl.Int32(),
        pl.UInt32: pl.Int64(),
        pl.UInt64: pl.Decimal(20, 0),
        pl.Time: pl.Int64(),
        pl.Duration: pl.Int64(),
    }


def _instance(dtype: object) -> pl.DataType:
    # Polars lets people write `pl.List(pl.Int64)` for `pl.List(pl.Int64())`.
    return cast("pl.DataType", dtype() if isinstance(dtype, type) else dtype)
