"""The `data` section: tables, where they come from and what must hold of them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from modelyard._kit.fields import Column, Duration, Section, Share, Texts

__all__ = ["Rule", "Source", "Volume"]


class Rule(Section, frozen=True, kw_only=True):
    """What must hold of one column; everything left out is not checked."""

    type: Annotated[
        Literal["int", "float", "text", "bool", "date", "datetime"] | None,
        Meta(
            description="Type that every value of the column must have; a value that cannot be read as it makes its "
            "row bad. Left out, the type is inferred from the file.",
            examples=["int"],
        ),
    ] = None
    range: Annotated[
        tuple[float | str | None, float | str | None] | None,
        Meta(
            description="Smallest and largest value allowed, both included, of a column of numbers or dates; `null` "
            "leaves a side open. Left out, any value will do.",
            examples=[[17, 100], [0, None], ["2026-01-01", None]],
        ),
    ] = None
    allowed: Annotated[
        tuple[str | float | bool, ...],
        Meta(description="The only values allowed. Left out, every value is.", examples=[["<=50K", ">50K"]]),
    ] = ()
    pattern: Annotated[
        str | None,
        Meta(
            description="Regular expression that the whole text of a value must match (no look-around, no "
            "back-reference).",
            examples=["[A-Z]{2}[0-9]{4}"],
        ),
    ] = None
    unique: Annotated[
        bool,
        Meta(
            description="Whether a value may stand in one row only; the later rows with the same value are bad.",
            examples=[True],
        ),
    ] = False
    nullable: Annotated[
        bool, Meta(description="Whether a value may be missing; `false` makes a row without one bad.", examples=[False])
    ] = True
    max_missing: Annotated[
        Share | None,
        Meta(
            description="Largest share of missing values in the whole column; above it the load stops. Left out, there "
            "is no limit.",
            examples=["5%"],
        ),
    ] = None


class Volume(Section, frozen=True, kw_only=True):
    """How much a source must hold, so that half an export does not pass for the whole."""

    at_least: Annotated[
        int,
        Meta(description="Rows that the source must hold at least.", examples=[1000], ge=0),
    ] = 0
    of_last: Annotated[
        Share,
        Meta(
            description="Share of the rows that the source held the last time it passed, which it must hold at least.",
            examples=["50%"],
        ),
    ] = 0.0


class Source(Section, frozen=True, kw_only=True):
    """One table: the files it comes from, how new rows are told from old ones, and its contract."""

    from_: Annotated[
        Texts,
        Meta(
            description="CSV or Parquet files that the table is made of: a file, a folder or a pattern with `*`, or a "
            "list of those, relative to modelyard.yaml. A file that was loaded before is not read again.",
            examples=["data/*.csv"],
            min_length=1,
        ),
    ] = field(name="from")
    key: Annotated[
        Texts,
        Meta(
            description="Column or columns that name a row. A newer row with the same key replaces the older one, and "
            "rows with one key never stand on both sides of a split. Left out, each row stands for itself.",
            examples=["id", ["customer", "month"]],
        ),
    ] = ()
    cursor: Annotated[
        Column | None,
        Meta(
            description="Column that grows with time: of rows with one key the greatest is the newest, so that a late "
            "row never replaces a newer one. Left out, the row loaded last is the newest.",
            examples=["updated_at"],
        ),
    ] = None
    fresh_within: Annotated[
        Duration | None,
        Meta(
            description="Age that the newest row (by `cursor`, else the newest file) may have; an older one skips the "
            "run before it costs anything. Left out, any age will do.",
            examples=["2d"],
        ),
    ] = None
    volume: Annotated[
        Volume | None,
        Meta(
            description="How much the source must hold; with less of it the run is skipped before it costs anything. "
            "Left out, any row will do.",
            examples=[{"at_least": 1000, "of_last": "50%"}],
        ),
    ] = None
    contract: Annotated[
        dict[Column, Rule],
        Meta(
            description="What must hold, by column; a column named here must be there. Checked on every load, in one "
            "pass.",
            examples=[{"age": {"type": "int", "range": [17, 100]}}],
        ),
    ] = field(default_factory=dict)
    bad_rows: Annotated[
        Literal["stop", "quarantine"],
        Meta(
            description="What happens to rows that break the contract: `stop` ends the run before anything is made of "
            "them, `quarantine` sets them aside in a table of their own with the reason.",
            examples=["quarantine"],
        ),
    ] = "stop"
    delimiter: Annotated[
        str,
        Meta(
            description="What stands between two cells of a CSV file. With a space after it (`, `), spaces around "
            "cells and names are dropped.",
            examples=[";", ", "],
            min_length=1,
            max_length=2,
        ),
    ] = ","
    null_values: Annotated[
        Texts,
        Meta(
            description="Texts that mean a missing value in a CSV file, besides the empty cell.",
            examples=["?", ["NA", "-"]],
        ),
    ] = ()
    comment: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="What begins a line of a CSV file that is skipped. Left out, no line is.", examples=["#"]),
    ] = None
    columns: Annotated[
        tuple[Column, ...],
        Meta(
            description="Names of the columns in order, for a CSV file whose first line is not a header. Left out, the "
            "first line is.",
            examples=[["label", "text"]],
        ),
    ] = ()
