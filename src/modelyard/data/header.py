"""Read the names of the columns of files, and nothing below them: what a declaration names can be held against them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from modelyard._kit.errors import DataError
from modelyard.data.base import Options

__all__ = ["columns_in"]

# A file is opened for its first line; a folder of more files than these is left to the run.
_MOST = 200


def columns_in(addresses: Sequence[str], root: Path, options: Options) -> tuple[str, ...] | None:
    """Return every column that files have, in order; none where that cannot be told by their first lines alone.

    Args:
        addresses: Paths, patterns and folders, as `from` has them.
        root: Folder that relative paths begin at.
        options: How the text of a CSV file is read.
    """
    from modelyard.data.sources import named_files

    found: dict[str, None] = {}
    try:
        if any("://" in address for address in addresses):
            return None
        files = list(islice((root / name for a in addresses for name in named_files(a, root)), _MOST + 1))
        if len(files) > _MOST:
            return None
        for file in files:
            found |= dict.fromkeys(_names(file, options))
    except (DataError, OSError, ValueError):
        return None  # a file that cannot be read is the run's to tell of
    return tuple(found) or None


def _names(file: Path, options: Options) -> Iterator[str]:
    if not file.is_file():
        raise ValueError(f"{file} is no file")  # to open a pipe waits for whoever writes into it
    with file.open("rb") as opened:
        parquet = opened.read(4) == b"PAR1" or file.suffix.lower() in (".parquet", ".pq")
    if parquet:
        import polars as pl

        try:
            yield from pl.read_parquet_schema(file)
        except pl.exceptions.PolarsError as error:
            raise ValueError(str(error)) from error
    else:
        from modelyard.data.csvlines import header

        if file.suffix.lower() == ".tsv" and options.delimiter == ",":
            options = Options("\t", options.null_values, options.comment, options.columns)
        yield from header(file, file.name, options)
