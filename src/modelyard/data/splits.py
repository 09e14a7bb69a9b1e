"""Divide rows into training and test so that the test says something about rows never seen.

What is divided are units: rows of one key (or one group) always stand together, and with the keys of several tables
whatever any of them ties together. A unit's place comes from a hash of its key, not from a shuffle, so that the rows of
an earlier run fall on the same side when new ones arrive, up to the few at the border.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import DataError
from modelyard._kit.units import known_keys, same_key, units_of

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["by_group", "by_hash", "by_time"]

Keys = Sequence[Sequence[str]]


def by_hash(frame: pl.DataFrame, *, keys: Keys, strata: Array | None, test: float, seed: int) -> Array:
    """Return which rows are the test: the same share of each stratum, by a hash of the key (else the position).

    Args:
        frame: The rows.
        keys: Columns of each key; rows that any of them ties together stand together. Empty: each row for itself.
        strata: Code of each row's class, so that each class has the same share; none for numbers. A unit with rows
            of several classes counts for the class of its first row.
        test: Share of the rows.
        seed: Another seed gives another division.

    Raises:
        DataError: The keys tie all rows together (`data-split`).
    """
    import numpy as np

    units, first = _apart(frame, keys)
    sizes = np.bincount(units, minlength=len(first))
    places = _places(frame, keys, units, len(first), seed)
    classes = np.zeros(len(first), np.int64) if strata is None else strata[first]
    chosen = np.zeros(len(first), bool)
    for one in np.unique(classes):
        members = np.flatnonzero(classes == one)
        chosen[_take(members[np.argsort(places[members], kind="stable")], sizes, test)] = True
    return chosen[units]


def by_group(frame: pl.DataFrame, *, column: str, keys: Keys, test: float, seed: int) -> Array:
    """Return which rows are the test: whole groups, by a hash of the group.

    Raises:
        DataError: A row has no group, there is one group only, or a key stands in two (`data-split`).
    """
    import numpy as np

    _no_missing(frame, column, "group")
    units, first = units_of(frame, [[column]])
    if len(first) < 2:
        raise _cannot(f"`{column}` has one value only, so there are no two sides", "split by another column")
    for key in known_keys(frame, keys):
        mixed = np.flatnonzero(units != units[same_key(frame, key)])
        if len(mixed):
            row = frame.row(int(mixed[0]), named=True)
            named, columns = ", ".join(str(row[k]) for k in key), ", ".join(f"`{k}`" for k in key)
            raise _cannot(
                f"key `{named}` ({columns}) stands in two groups of `{column}`",
                f"split by a column that has one value for each key, or leave {columns} out in `features`",
            )
    sizes = np.bincount(units, minlength=len(first))
    order = np.argsort(_hashes(frame, [column], first, seed), kind="stable")
    chosen = np.zeros(len(first), bool)
    chosen[_take(order, sizes, test)] = True
    return chosen[units]


def by_time(frame: pl.DataFrame, *, column: str, keys: Keys, test: float) -> Array:
    """Return which rows are the test: the newest; rows of one time, or of one key, are never divided.

    Raises:
        DataError: A row has no time, the column holds none, all rows have the same, or the keys tie all rows together
            (`data-split`).
    """
    import numpy as np

    _no_missing(frame, column, "time")
    times = _times(frame, column)
    # A key is as new as its newest row, so that nothing is learned from a later time than the border.
    units, first = _apart(frame, keys)
    newest = np.full(len(first), np.iinfo(np.int64).min)
    np.maximum.at(newest, units, times)
    times = newest[units]
    moments, counts = np.unique(times, return_counts=True)
    if len(moments) < 2:
        raise _cannot(f"`{column}` has one value only, so nothing is newer", "split by another column")
    # Rows from a moment on, for each moment but the first; the border is where that comes closest to what is asked.
    later = counts[::-1].cumsum()[::-1][1:]
    border = moments[1:][np.abs(later - test * len(times)).argmin()]
    return np.asarray(times >= border)


def _times(frame: pl.DataFrame, column: str) -> Array:
    """The column as numbers in their order."""
    import polars as pl

    from modelyard.data.types import read_as

    values = frame[column]
    if values.dtype == pl.String:
        read = frame.select(read_as(column, values.dtype, "datetime"))[column]
        if read.null_count():
            odd = values.filter(read.is_null())[0]
            raise _cannot(f"`{column}` holds `{odd}`, which is no time", "declare its type in the contract")
        values = read
    if not (values.dtype.is_temporal() or values.dtype.is_numeric()):
        raise _cannot(f"`{column}` holds {values.dtype}, which has no order in time", "name a date or a number")
    times: Array = values.rank("dense").cast(pl.Int64).to_numpy()
    return times


def _apart(frame: pl.DataFrame, keys: Keys) -> tuple[Array, Array]:
    """Return the units, of which there are at least two; see `units_of`."""
    units, first = units_of(frame, keys)
    if len(first) < 2 < frame.height:
        columns = " and ".join(f"`{', '.join(key)}`" for key in known_keys(frame, keys))
        raise _cannot(
            f"all rows are tied together by {columns}, so there are no two sides",
            "leave out in `features` the key whose rows may stand on both sides",
        )
    return units, first


def _places(frame: pl.DataFrame, keys: Keys, units: Array, count: int, seed: int) -> Array:
    """Return the place of each unit in the order that the test is taken in.

    It comes from the key with the fewest values: a customer's place is not to change with the next visit.
    """
    import numpy as np

    rows = np.arange(frame.height)
    places = _hashes(frame, [], rows, seed)
    open_ = np.ones(frame.height, bool)
    firsts = [(key, same_key(frame, key)) for key in known_keys(frame, keys)]
    for key, at in sorted(firsts, key=lambda one: len(np.unique(one[1]))):
        has = open_ & ~_gaps(frame, key)
        if not has.any():
            continue
        heads, where = np.unique(at[has], return_inverse=True)
        places[has] = _hashes(frame, key, heads, seed)[where]
        open_ = open_ & ~has
    if count == frame.height:
        return places
    lowest = np.full(count, np.iinfo(np.uint64).max)
    np.minimum.at(lowest, units, places)
    return lowest


def _gaps(frame: pl.DataFrame, key: Sequence[str]) -> Array:
    import polars as pl

    gaps: Array = frame.select(pl.any_horizontal(pl.col(c).is_null() for c in key).alias("gone"))["gone"].to_numpy()
    return gaps


def _take(order: Array, sizes: Array, share: float) -> Array:
    """Return the first units, in this order, that together come closest to a share of the rows; never none or all."""
    import numpy as np

    counts = sizes[order]
    middle = counts.cumsum() - counts / 2
    taken = int((middle <= share * counts.sum()).sum())
    return np.asarray(order[: min(max(taken, 1), len(order) - 1)] if len(order) > 1 else order[:0])


def _hashes(frame: pl.DataFrame, columns: Sequence[str], first: Array, seed: int) -> Array:
    """A number for each unit that is the same in every run, on every machine and with every version of Polars."""
    import numpy as np
    import polars as pl

    if not columns:
        codes = first.astype(np.uint64)
    else:
        heads = frame[first.tolist()] if len(first) < frame.height else frame
        if len(columns) == 1 and heads[columns[0]].dtype.is_integer() and not heads[columns[0]].null_count():
            codes = heads[columns[0]].cast(pl.Int64).to_numpy().view(np.uint64)
        else:
            joined = pl.concat_str([pl.col(c).cast(pl.String).fill_null("\0") for c in columns], separator="\x1f")
            texts = heads.select(joined).to_series().to_list()
            codes = np.fromiter((zlib.crc32(t.encode()) for t in texts), np.uint64, len(texts))
    return _mixed(codes ^ _mixed(np.array([seed], np.uint64)))


def _mixed(numbers: Array) -> Array:
    """SplitMix64 (Steele, Lea and Flood, 2014): neighbours become unlike numbers; wraps around by design."""
    import numpy as np

    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _no_missing(frame: pl.DataFrame, column: str, what: str) -> None:
    gone = frame[column].null_count()
    if gone:
        hint = "fill it in, or leave these rows out in `features`"
        raise _cannot(f"{gone:,} rows have no {what} (`{column}`)", hint)


def _cannot(message: str, hint: str) -> DataError:
    return DataError("data-split", message, where="model.split", hint=hint)
