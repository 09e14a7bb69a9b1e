"""What a value may be read as: six types, how text becomes them, and how the type of a column is found out.

A value that cannot be read becomes missing; whoever casts compares with what was there before, so that nothing gets
lost unseen. Times are UTC, to the microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from modelyard.data.base import ROW

if TYPE_CHECKING:
    import polars as pl

    from modelyard.data.base import Opened

__all__ = ["NAMES", "dtype_of", "infer", "misfits", "read_as", "type_of", "written"]

NAMES = {
    "int": "a whole number",
    "float": "a number",
    "text": "text",
    "bool": "true or false",
    "date": "a date (YYYY-MM-DD)",
    "datetime": "a date and time (YYYY-MM-DD HH:MM:SS)",
}
_YES = ("true", "t", "yes", "y", "1")
_NO = ("false", "f", "no", "n", "0")
_TIMES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
# Rows looked at before a guess is held against all of them.
_HEAD = 1000
# What a column is tried as, in this order; of numbers first the plain form, which is fast.
_GUESSES = (
    ("int", True),
    ("int", False),
    ("float", True),
    ("float", False),
    ("bool", False),
    ("date", False),
    ("datetime", False),
)
# Digits that every whole number may have in 64 bits, and in a float.
_DIGITS = {"int": 18, "float": 15}


def dtype_of(name: str) -> pl.DataType:
    """Return the Polars type that a column of this type is stored as."""
    import polars as pl

    known: dict[str, pl.DataType] = {
        "int": pl.Int64(),
        "float": pl.Float64(),
        "text": pl.String(),
        "bool": pl.Boolean(),
        "date": pl.Date(),
        "datetime": pl.Datetime("us", "UTC"),
    }
    return known[name]


def type_of(dtype: pl.DataType) -> str:
    """Return the type that a Polars type stands for; empty for one that is kept as it is (lists, structs)."""
    import polars as pl

    if dtype.is_integer():
        return "int"
    if dtype.is_float():
        return "float"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "text"
    if isinstance(dtype, pl.Datetime):
        return "datetime"
    return {"Boolean": "bool", "Date": "date"}.get(str(dtype), "")


def read_as(name: str, dtype: pl.DataType, wanted: str, *, plain: bool = False) -> pl.Expr:
    """Return a column as the wanted type; what cannot be read as it is missing, and so is a NaN.

    Args:
        name: Name of the column.
        dtype: Type that it has.
        wanted: Name of the type, see `NAMES`; empty keeps the column.
        plain: Of numbers in text take only the plain form, without spaces around and without `39.0` for 39. Four
            times faster: for a first try.
    """
    import polars as pl

    column = pl.col(name)
    have = type_of(dtype)
    if plain and isinstance(dtype, pl.String) and wanted in ("int", "float"):
        number = column.cast(dtype_of(wanted), strict=False)
        return number.fill_nan(None) if wanted == "float" else number
    if have == "float":
        column = column.fill_nan(None)
    if not wanted or (have == wanted and dtype == dtype_of(wanted)):
        return column
    if isinstance(dtype, pl.String):
        return _from_text(column, wanted).alias(name)
    return _from_value(column, dtype, have, wanted).alias(name)


def _from_text(column: pl.Expr, wanted: str) -> pl.Expr:
    import polars as pl

    text = column.str.strip_chars()
    if wanted == "int":
        # Tools that know no missing integer write 39.0; 39.5 stays unreadable.
        return pl.coalesce(text.cast(pl.Int64, strict=False), _whole(text.cast(pl.Float64, strict=False)))
    if wanted == "float":
        return text.cast(pl.Float64, strict=False).fill_nan(None)
    if wanted == "bool":
        words = dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)
        return text.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    if wanted == "date":
        return text.str.to_date("%Y-%m-%d", strict=False)
    if wanted == "datetime":
        spaced = text.str.replace("T", " ", literal=True)
        return pl.coalesce(
            *(spaced.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC") for form in _TIMES),
            spaced.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            spaced.str.to_datetime(f"{_TIMES[0]}%#z", strict=False, time_unit="us"),
        )
    return column


def _from_value(column: pl.Expr, dtype: pl.DataType, have: str, wanted: str) -> pl.Expr:
    import polars as pl

    if have == "text":  # categories
        return _from_text(column.cast(pl.String), wanted)
    if wanted == "text":
        return written(column, dtype)
    if wanted == "int" and have == "float":
        return _whole(column)
    if wanted == "bool" and have in ("int", "float"):
        return pl.when(column.is_in([0, 1])).then(column == 1)
    if wanted == "datetime" and have in ("date", "datetime"):
        zone = getattr(dtype, "time_zone", None)
        moment = column.cast(pl.Datetime("us", zone))
        return moment.dt.convert_time_zone("UTC") if zone else moment.dt.replace_time_zone("UTC")
    numbers, days = {"int", "float", "bool"}, {"date", "datetime"}
    if {have, wanted} <= numbers or {have, wanted} <= days:
        return column.cast(dtype_of(wanted), strict=False)
    return pl.lit(None, dtype_of(wanted))


def _whole(column: pl.Expr) -> pl.Expr:
    import polars as pl

    # Beyond 2**53 a float no longer says which whole number was meant.
    sure = (column == column.floor()) & (column.abs() <= 2.0**53)
    return pl.when(sure).then(column).cast(pl.Int64, strict=False)


def written(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a column as a person would write it; lists and structs stay as they are."""
    import polars as pl

    if isinstance(dtype, pl.Datetime):
        return column.dt.to_string("%Y-%m-%d %H:%M:%S%.f")
    if dtype.is_nested() or isinstance(dtype, pl.Binary | pl.Object):
        return column
    return column.cast(pl.String)


def infer(opened: Sequence[Opened], columns: Sequence[str]) -> dict[str, str]:
    """Find out what the text of columns is, looking at every row of every file.

    Args:
        opened: Files whose columns are text.
        columns: Which columns.

    Returns:
        Column -> type. `text` where nothing else fits, where all values are missing, and for codes: numbers with
        leading zeros or too long for a number.
    """
    found = dict.fromkeys(columns, "text")
    if not columns:
        return found
    frames = _whole_lines(opened)
    heads = [frame.select(columns).head(_HEAD).collect().lazy() for frame in frames]
    # A cheap look first: most guesses fall at the first rows, and each look at all rows costs a parse.
    passing = {guess: _trial(heads, dict.fromkeys(columns, guess)) for guess in _GUESSES}
    guesses = {c: [guess for guess in _GUESSES if passing[guess][c] is not False] for c in columns}
    while trial := {c: left[0] for c, left in guesses.items() if left}:
        for column, fits in _trial(frames, trial).items():
            guesses[column] = guesses[column][1:] if fits is False else []
            if fits:
                found[column] = trial[column][0]
    return found


def misfits(opened: Sequence[Opened], kinds: Mapping[str, str]) -> list[str]:
    """Return the columns of which some text would not have been taken for a value of the type they have.

    Args:
        opened: Files whose columns are text.
        kinds: Column -> type; everything is text.
    """
    trial = {name: (kind, False) for name, kind in kinds.items() if kind not in ("", "text")}
    return [c for c, fits in _trial(_whole_lines(opened), trial).items() if fits is False] if trial else []


def _whole_lines(opened: Sequence[Opened]) -> list[pl.LazyFrame]:
    return [o.frame.filter(~_at(o.broken)) if o.broken else o.frame for o in opened]


def _trial(frames: Sequence[pl.LazyFrame], trial: dict[str, tuple[str, bool]]) -> dict[str, bool | None]:
    """Say for each column whether every value can be read as was guessed; none where there is no value."""
    import polars as pl

    looks = [
        frame.select(
            *(pl.col(c).is_not_null().any().alias(f"seen {c}") for c in trial),
            *((pl.col(c).is_not_null() & ~_fits(c, *guess)).any().alias(f"misfit {c}") for c, guess in trial.items()),
        )
        for frame in frames
    ]
    rows = [look.row(0, named=True) for look in pl.collect_all(looks, engine="streaming")]
    found: dict[str, bool | None] = {}
    for column in trial:
        seen = any(row[f"seen {column}"] for row in rows)
        found[column] = not any(row[f"misfit {column}"] for row in rows) if seen else None
    return found


def _fits(column: str, kind: str, plain: bool) -> pl.Expr:
    import polars as pl

    text = pl.col(column)
    if kind == "bool":
        return text.str.to_lowercase().is_in(["true", "false"])
    fits = read_as(column, pl.String(), kind, plain=plain).is_not_null()
    if kind not in ("int", "float"):
        return fits
    if kind == "float" and not plain:
        fits |= text.str.strip_chars().str.to_lowercase() == "nan"
    fraction = text.str.contains(".", literal=True)
    # A number with a leading zero is a code (a zip, a phone number), and so is one that no float can hold.
    code = text.str.starts_with("0") & (text.str.len_bytes() > 1)
    fits &= ~((code | (text.str.len_bytes() > _DIGITS[kind])) & ~fraction)
    # 39.0 may be meant as 39 where the contract says so; a guess takes it for what it is.
    return fits & ~fraction if kind == "int" else fits


def _at(rows: Iterable[int]) -> pl.Expr:
    import polars as pl

    return pl.col(ROW).is_in(list(rows))
