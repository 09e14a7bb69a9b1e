"""Incremental loads: which items of a source are new to a table, and their rows with the types of the table.

A part of a table is one item under the digest of its content and of how it is read, so an item is loaded once,
whatever it is called and however often the load is tried. If an item that was loaded is gone or has other content
now, its old rows have to go too: the table is then made anew from all items. So it is when a new item shows that a
column is of another type than it looked, or brings a new column: a table loaded file by file is the table that would
come of all files at once.

Rows that a reader must not take for older copies of each other are told apart by `_copy`, which belongs to the key of
the stored table beside the user's own key:

- 0: the one row of its key in its part, or the newest of them by the cursor;
- 1, 2, ...: further rows of one part with the same key and, at the newest, the same cursor. Nothing says which of
  them is right; the contract calls them duplicates;
- below 0: a row that has no key or no cursor, or whose line is broken, so that nothing it says of itself can be
  trusted. It replaces nothing and is replaced by nothing; the contract calls it bad.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import DataError, near
from modelyard.data.base import COPY, PROVENANCE, RAW, Item, Opened, Options
from modelyard.data.readers import BROKEN, conform
from modelyard.data.sources import source_for
from modelyard.data.types import infer, misfits, type_of
from modelyard.store.base import Appended, Part

if TYPE_CHECKING:
    import polars as pl

    from modelyard.records import TableVersion

__all__ = ["load_new", "part_digest", "reading_of"]

# Part of each part's digest: raise it when the same file would give other rows.
_READER = 1
# Items up to this size are read at once, so that whatever is wrong with them is said here, with their name.
_EAGER_BYTES = 64 << 20
# Two types of one column in typed files -> the one that holds both. Whole numbers with a gap are often kept as floats.
_WIDER = {pair: wide for a, wide in (("int", "float"), ("date", "datetime")) for pair in ((a, wide), (wide, a))}


def load_new(
    source: dict[str, Any], types: dict[str, str], items: Sequence[Item], root: Path, previous: TableVersion | None
) -> Appended:
    """Return the parts of a table that it does not have yet; see the module for what is new.

    Args:
        source: The declaration of the table: `key`, `cursor`, `delimiter`, `null_values`, `comment`, `columns`.
        types: Declared types, by column.
        items: Everything the source holds now.
        root: Folder of the project.
        previous: The table as it was loaded last.

    Raises:
        DataError: An item cannot be read, or a column is missing (`data-column-missing`, `data-column-vanished`).
    """
    key, cursor = tuple(source.get("key") or ()), source.get("cursor") or ""
    reading = reading_of(source, types)
    digests: dict[str, Item] = {}
    for item in items:
        # The same content under two names is one part, under the first of them.
        digests.setdefault(part_digest(item.sha256, reading), item)
    if previous is not None and not set(previous.parts) <= set(digests):
        previous = None
    opened = _open(source, digests, root, set(previous.parts) if previous else ())
    needed = [*key, *([cursor] if cursor else [])]
    kinds: dict[str, str] = {}
    if opened and previous is not None:
        _check_columns(opened.values(), previous, needed)
        kinds = _loaded(previous, types)
        if _surprising(list(opened.values()), kinds, types):
            every = {**_open(source, digests, root, opened), **opened}
            every = {digest: every[digest] for digest in digests}
            _check_columns(every.values(), None, needed)
            if (now := _kinds(list(every.values()), types)) != kinds:
                previous, opened, kinds = None, every, now
    elif opened:
        _check_columns(opened.values(), None, needed)
        if not any(o.rows - len(o.skip) for o in opened.values()):
            files = ", ".join(f"`{o.item.path}`" for o in opened.values())
            raise DataError("data-no-rows", f"{files} hold no row", hint="add rows below the names of the columns")
        kinds = _kinds(list(opened.values()), types)
    before = len(previous.parts) if previous else 0
    parts = [
        Part(digest, _rows(_widened(one, kinds), kinds, key, cursor, before + at))
        for at, (digest, one) in enumerate(opened.items())
    ]
    return Appended(
        previous=previous, parts=parts, newest_by=(*key, COPY) if key else (), newest_order=cursor if key else ""
    )


def part_digest(sha256: str, reading: dict[str, Any]) -> str:
    """Return the digest of a part: of what is read, and of everything that decides how."""
    return digest_of([_READER, sha256, reading])


def reading_of(source: dict[str, Any], types: dict[str, str]) -> dict[str, Any]:
    """Return everything that decides how a source is read; see `load_new` for the arguments."""
    named = ("key", "cursor", "delimiter", "null_values", "comment", "columns")
    return {name: source.get(name) or None for name in named} | {"types": types}


def _options(source: dict[str, Any]) -> Options:
    return Options(
        delimiter=source.get("delimiter") or ",",
        null_values=tuple(source.get("null_values") or ()),
        comment=source.get("comment") or "",
        columns=tuple(source.get("columns") or ()),
    )


def _open(source: dict[str, Any], digests: dict[str, Item], root: Path, without: Collection[str]) -> dict[str, Opened]:
    new = {digest: item for digest, item in digests.items() if digest not in without}
    return {digest: source_for(item.path, root).read(item, _options(source)) for digest, item in new.items()}


def _check_columns(opened: Iterable[Opened], previous: TableVersion | None, needed: Sequence[str]) -> None:
    """No column that was there is gone, neither since the loads before nor from one item to the next."""
    files = list(opened)
    known = [c.name for c in previous.columns if c.name not in PROVENANCE] if previous else files[0].columns
    since = dict.fromkeys(known, "loads before" if previous else f"`{files[0].item.path}`")
    for column in needed:
        if column not in since:
            what = f"has no column `{column}`, which `key` or `cursor` names"
            raise _without("data-column-missing", files[0], column, what)
    for one in files:
        for column, where in since.items():
            if column not in one.columns:
                raise _without("data-column-vanished", one, column, f"has no column `{column}`, which {where} had")
        since = dict.fromkeys(one.columns, f"`{one.item.path}`") | since


def _without(code: str, one: Opened, column: str, what: str) -> DataError:
    close = near(column, one.columns)
    if close:
        hint = "did you mean " + " or ".join(f"`{c}`" for c in close) + "? Name the column as before"
    else:
        hint = f"it has {', '.join(f'`{c}`' for c in one.columns[:8])}"
    return DataError(code, f"`{one.item.path}` {what}", where=one.item.path, hint=hint)


def _loaded(previous: TableVersion, types: dict[str, str]) -> dict[str, str]:
    """Types of the columns as they were loaded before; what is declared cannot have been another."""
    loaded = {c.name: _kind_of(c.type) for c in previous.columns if c.name not in PROVENANCE}
    return {name: types.get(name, kind) for name, kind in loaded.items()}


def _surprising(opened: Sequence[Opened], kinds: dict[str, str], types: dict[str, str]) -> bool:
    """Say whether new items may make other columns, or other types of them, of the table."""
    if any(name not in kinds for one in opened for name in one.columns):
        return True
    undeclared = {name: kind for name, kind in kinds.items() if name not in types}
    for one in opened:
        schema = {} if one.text else one.frame.collect_schema()
        if any(schema and type_of(schema[name]) != kind for name, kind in undeclared.items()):
            return True
    texts = [one for one in opened if one.text]
    # A column of which no value was seen yet is text, until one says otherwise.
    maybe = [name for name, kind in undeclared.items() if kind == "text"]
    return bool(misfits(texts, undeclared)) or any(kind != "text" for kind in infer(texts, maybe).values())


def _kinds(opened: Sequence[Opened], types: dict[str, str]) -> dict[str, str]:
    """Types of all columns: as declared, else as typed files have them, else as the values look."""
    columns = dict.fromkeys(name for one in opened for name in one.columns)
    known = dict(types)
    for one in opened:
        for name, dtype in {} if one.text else one.frame.collect_schema().items():
            if name in columns and name not in types:
                pair = known.get(name, ""), type_of(dtype)
                known[name] = _WIDER.get(pair) or pair[0] or pair[1]
    texts = [_widened(one, columns) for one in opened if one.text]
    guessed = infer(texts, [name for name in columns if name not in known])
    return {name: known[name] if name in known else guessed.get(name, "") for name in columns}


def _widened(one: Opened, columns: Iterable[str]) -> Opened:
    """Return an item with every column of the table; one that came up later has no value in it."""
    import polars as pl

    lacking = [name for name in columns if name not in one.columns]
    if not lacking:
        return one
    return replace(one, frame=one.frame.with_columns(pl.lit(None, pl.String).alias(name) for name in lacking))


def _kind_of(stored: str) -> str:
    """The type of a stored column, from the text of its Polars type."""
    known = {"Int64": "int", "Float64": "float", "String": "text", "Boolean": "bool", "Date": "date"}
    return known.get(stored) or ("datetime" if re.match(r"Datetime\b", stored) else "")


def _rows(
    one: Opened, kinds: dict[str, str], key: Sequence[str], cursor: str, part: int
) -> pl.LazyFrame | pl.DataFrame:
    """The rows of one item as a part of the table."""
    import polars as pl

    frame: pl.LazyFrame | pl.DataFrame = conform(one, kinds)
    if key:
        frame = frame.with_columns(_copies(key, cursor, part))
    if one.item.size > _EAGER_BYTES:
        return frame
    try:
        done = frame.lazy().collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise _unreadable(one, str(error).partition("\n")[0]) from error
    if done.height != one.rows - len(one.skip):
        raise _unreadable(one, f"{done.height:,} rows were read where {one.rows - len(one.skip):,} are")
    return done


def _unreadable(one: Opened, why: str) -> DataError:
    return DataError(
        "data-unreadable",
        f"`{one.item.path}` cannot be read: {why}",
        where=one.item.path,
        hint="open it in a text editor; most often a quote is missing or `delimiter` is another",
    )


def _copies(key: Sequence[str], cursor: str, part: int) -> pl.Expr:
    """The column `_copy`, see the module."""
    import polars as pl

    named = [*key, *([cursor] if cursor else [])]
    broken = pl.col(RAW).str.contains(f'"{BROKEN}":"', literal=True).fill_null(False)
    apart = pl.any_horizontal(pl.col(named).is_null()) | broken
    # No two of these are the same in the whole table: the part in the upper bits, the row in the lower.
    alone = -(pl.int_range(pl.len(), dtype=pl.Int64) + 1 + (part << 40))
    # Rows that stand apart must not count as copies of others, so the flag is part of the group.
    copy = pl.int_range(pl.len(), dtype=pl.Int64).over(*named, broken)
    if cursor:
        newest = pl.col(cursor) == pl.col(cursor).max().over(*key, broken)
        copy = pl.when(newest).then(copy).otherwise(0)
    return pl.when(apart).then(alone).otherwise(copy).cast(pl.Int64).alias(COPY)
