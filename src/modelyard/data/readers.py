"""Open CSV and Parquet files, and give their columns the types of the table they go into.

A CSV file is read as text; each batch is cast at once, and only where a value got lost on the way the lost values are
looked for: the row keeps them in `_raw` as JSON, for the contract to judge. So a bad value never fails a load and
never passes for a missing one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import DataError
from modelyard.data.base import FILE, LINE, RAW, ROW, Item, Opened, Options
from modelyard.data.csvlines import scan
from modelyard.data.types import dtype_of, read_as, written

if TYPE_CHECKING:
    import polars as pl

__all__ = ["BROKEN", "conform", "open_csv", "open_file", "open_parquet"]

# The name under which `_raw` keeps the whole text of a line with too many or too few cells; no column has it.
BROKEN = LINE
_OTHER = {
    ".gz": "unpack it first",
    ".zip": "unpack it first",
    ".xlsx": "save it as CSV",
    ".xls": "save it as CSV",
    ".json": "convert it to CSV or Parquet",
    ".jsonl": "convert it to CSV or Parquet",
    ".arrow": "convert it to Parquet",
    ".feather": "convert it to Parquet",
}


def open_file(path: Path, item: Item, options: Options) -> Opened:
    """Open a file as what it is: Parquet by its first bytes, CSV otherwise.

    Raises:
        DataError: It is neither (`data-format`), or cannot be read as what it is.
    """
    ending = path.suffix.lower()
    if ending in _OTHER:
        raise DataError(
            "data-format", f"`{item.path}` is neither CSV nor Parquet", where=item.path, hint=_OTHER[ending]
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1" or ending in (".parquet", ".pq"):
        return open_parquet(path, item)
    if ending == ".tsv" and options.delimiter == ",":
        options = Options("\t", options.null_values, options.comment, options.columns)
    return open_csv(path, item, options)


def open_csv(path: Path, item: Item, options: Options) -> Opened:
    """Open a CSV file; every column is text, an empty cell or one of `null_values` is missing.

    Raises:
        DataError: See `csvlines.scan`.
    """
    import polars as pl

    lines = scan(path, item.path, options)
    missing = ["", *options.null_values]
    uneven = bool(lines.broken or lines.blank)
    frame = pl.scan_csv(
        path,
        has_header=False,
        schema=dict.fromkeys(lines.names, pl.String),
        separator=options.delimiter.rstrip(" ") or " ",
        quote_char='"' if lines.quoted else None,
        comment_prefix=options.comment or None,
        skip_lines=lines.skip_lines,
        null_values=missing,
        # Only rows that are known to be broken (or blank) are cut or filled up. Polars takes the first row for the
        # measure of all, so it has to be told in both directions.
        truncate_ragged_lines=uneven,
        missing_columns="insert" if uneven else "raise",
        extra_columns="ignore" if uneven else "raise",
        row_index_name=ROW,
        glob=False,
    )
    if lines.padded:
        stripped = pl.col(lines.names).str.strip_chars()
        frame = frame.with_columns(pl.when(~stripped.is_in(missing)).then(stripped))
    return Opened(
        item=item,
        frame=frame,
        columns=lines.names,
        rows=lines.rows,
        text=True,
        skip=tuple(lines.blank),
        broken=lines.broken,
        first_line=lines.skip_lines + 1,
        breaks=(tuple(lines.breaks[0]), tuple(lines.breaks[1])),
    )


def open_parquet(path: Path, item: Item) -> Opened:
    """Open a Parquet file; its columns have types of their own.

    Raises:
        DataError: It is not Parquet (`data-format`).
    """
    import polars as pl

    try:
        names = tuple(pl.read_parquet_schema(path))
        frame = pl.scan_parquet(path, glob=False)
        rows = int(frame.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            "data-format",
            f"`{item.path}` cannot be read as Parquet: {error}",
            where=item.path,
            hint="write the file again; it may have been cut off",
        ) from error
    return Opened(item=item, frame=frame.with_row_index(ROW), columns=names, rows=rows)


def conform(opened: Opened, types: dict[str, str]) -> pl.LazyFrame:
    """Return the rows with the columns of a table, and where they came from.

    Args:
        opened: What was opened; it has every column.
        types: Column -> type, in the order of the table; an empty type keeps what the file has.

    Returns:
        The columns, then `_file`, `_line` (missing for Parquet) and `_raw` (JSON of what could not be read).
    """
    import polars as pl

    have = opened.frame.collect_schema()
    plain = [read_as(name, have[name], kind, plain=True) for name, kind in types.items()]
    schema: dict[str, Any] = {name: dtype_of(kind) if kind else have[name] for name, kind in types.items()}

    def convert(batch: pl.DataFrame) -> pl.DataFrame:
        done = batch.select(*plain, pl.lit(opened.item.path).alias(FILE), _line(opened).alias(LINE))
        lost = [c for c in types if done[c].null_count() > batch[c].null_count()]
        # Only columns that lost a value are read with care.
        done = done.with_columns(batch.select(read_as(c, have[c], types[c]) for c in lost))
        lost = [c for c in lost if done[c].null_count() > batch[c].null_count()]
        done = done.with_columns(_raw(batch, done, lost, opened.broken))
        if opened.skip:
            done = done.filter(~batch[ROW].is_in(list(opened.skip)))
        return done

    return opened.frame.select(ROW, *types).map_batches(
        convert, schema={**schema, FILE: pl.String(), LINE: pl.Int64(), RAW: pl.String()}, streamable=True
    )


def _line(opened: Opened) -> pl.Expr:
    """The line in its file that each row begins at."""
    import polars as pl

    if not opened.first_line:
        return pl.lit(None, pl.Int64)
    line = pl.col(ROW).cast(pl.Int64) + opened.first_line
    positions, extra = opened.breaks
    if not positions:
        return line
    at = pl.lit(pl.Series(positions, dtype=pl.Int64)).search_sorted(pl.col(ROW).cast(pl.Int64), side="left")
    return line + pl.lit(pl.Series([0, *extra], dtype=pl.Int64)).gather(at)


def _raw(batch: pl.DataFrame, done: pl.DataFrame, lost: list[str], broken: dict[int, str]) -> pl.Series:
    """JSON of the values of each row that could not be read; missing where all could."""
    import polars as pl

    columns = {}
    for name in lost:
        text = batch.select(written(pl.col(name), batch.schema[name]))[name].cast(pl.String)
        # Nothing but spaces, and not-a-number, are missing values rather than bad ones.
        gone = done[name].is_null() & ~text.str.strip_chars().str.to_lowercase().is_in(["", "nan"])
        if gone.any():
            columns[name] = pl.select(pl.when(gone).then(text)).to_series()
    if broken:
        at, lines = pl.Series(list(broken), dtype=pl.Int64), pl.Series(list(broken.values()), dtype=pl.String)
        text = batch[ROW].cast(pl.Int64).replace_strict(at, lines, default=None, return_dtype=pl.String)
        if text.null_count() < len(text):
            columns[BROKEN] = text
    if not columns:
        return pl.Series(RAW, [None], pl.String).new_from_index(0, batch.height)
    found = pl.DataFrame([series.alias(name) for name, series in columns.items()])
    return found.select(
        pl.when(pl.any_horizontal(pl.all().is_not_null())).then(pl.struct(pl.all()).struct.json_encode()).alias(RAW)
    ).to_series()
