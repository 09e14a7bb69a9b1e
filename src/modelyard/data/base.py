"""What a source is: it lists what can be loaded, by content, and opens one of them.

Files are the built-in one (`sources.py`). Another joins as an entry point of the group `modelyard.sources`, named by
the scheme of its addresses (`s3` for `s3://bucket/rows.csv`), that points at a class taking the project's folder:

    [project.entry-points."modelyard.sources"]
    s3 = "my_package:S3Source"
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import polars as pl

    from modelyard.store.base import Store

__all__ = [
    "COPY",
    "FILE",
    "LINE",
    "PROVENANCE",
    "RAW",
    "REASONS",
    "ROW",
    "Context",
    "Item",
    "Opened",
    "Options",
    "Source",
]

# Columns that a loaded table has besides its own, until the contract takes them off again.
FILE, LINE, RAW, COPY = "_file", "_line", "_raw", "_copy"
PROVENANCE = (FILE, LINE, RAW, COPY)
# The column of a quarantine table that says what is wrong with a row.
REASONS = "_reasons"
# The position of a row in what was opened; never stored.
ROW = "_row"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to load, e.g. a file.

    Attributes:
        path: Address that the source opens it by; relative to the project's folder where it was given so.
        size: Bytes.
        sha256: Digest of the content.
    """

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Options:
    """How the text of a CSV file is read.

    Attributes:
        delimiter: What stands between two cells; with a space after it, spaces around cells are dropped.
        null_values: Texts that mean a missing value, besides the empty cell.
        comment: What begins a line that is skipped; empty for none.
        columns: Names in order, for a file whose first line is not a header.
    """

    delimiter: str = ","
    null_values: tuple[str, ...] = ()
    comment: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """One item opened, before any type is applied.

    Attributes:
        item: What was opened.
        frame: Its columns and `_row`, the position of each row from 0. Text where `text` says so.
        columns: Names of its columns, in order.
        rows: Rows in `frame`, those in `skip` included.
        text: Every value is text, and what it may be read as has to be found out.
        skip: Positions of rows that are none, e.g. blank lines.
        broken: Position -> the text of a line that does not have one cell for each column.
        first_line: Line of row 0 in its file; 0 where there are no lines.
        breaks: Positions after which more lines than one were taken by a row, and how many up to there.
    """

    item: Item
    frame: pl.LazyFrame
    columns: tuple[str, ...]
    rows: int
    text: bool = False
    skip: tuple[int, ...] = ()
    broken: dict[int, str] = field(default_factory=dict)
    first_line: int = 0
    breaks: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


class Source(Protocol):
    """Something that rows come from; made with the project's folder as its one argument."""

    def list(self, address: str) -> list[Item]:
        """Return what the address holds, in an order that does not depend on the machine.

        Raises:
            DataError: There is nothing there, or it cannot be read.
        """
        ...

    def read(self, item: Item, options: Options) -> Opened:
        """Open one item.

        Raises:
            DataError: It cannot be read, or it is not what was listed any more.
        """
        ...


class Context(Protocol):
    """What the probes of this house look at; the runner's context has it."""

    @property
    def root(self) -> Path:
        """Folder of the project."""
        ...

    @property
    def store(self) -> Store:
        """The project's store, for reading."""
        ...

    @property
    def inputs(self) -> dict[str, Any]:
        """Parameter -> plain JSON of the step's inputs."""
        ...
