"""Incremental loads: which items of a source are new to a table, and their rows with the types of the table.

A part of a table is one item under the digest of its content and of how it is read, so an item is loaded once,
whatever it is called and however often the load is tried. If an item that was loaded is gone or has other content
now, its old rows have to go too: the table is then made anew from all items.

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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import DataError, near
from modelyard.data.base import COPY, PROVENANCE, RAW, Item, Opened, Options
from modelyard.data.readers import BROKEN, conform
from modelyard.data.sources import source_for
from modelyard.data.types import infer, type_of
from modelyard.store.base import Appended, Part

if TYPE_CHECKING:
    import polars as pl

    from modelyard.records import TableVersion

__all__ = ["load_new", "part_digest"]

# Part of each part's digest: raise it when the same file would give other rows.
_READER = 1
# Items up to this size are read at once, so that whatever is wrong with them is said here, with their name.
_EAGER_BYTES = 64 << 20


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
    reading = _reading(source, types)
    digests: dict[str, Item] = {}
    for item in items:
        # The same content under two names is one part, under the first of them.
        digests.setdefault(part_digest(item.sha256, reading), item)
    if previous is not None and not set(previous.parts) <= set(digests):
        previous = None
    have = set(previous.parts) if previous else set()
    new = {digest: item for digest, item in digests.items() if digest not in have}
    opened = {digest: source_for(item.path, root).read(item, _options(source)) for digest, item in new.items()}
    if opened:
        _check_columns(opened.values(), previous, [*key, *([cursor] if cursor else [])])
        if previous is None and not any(o.rows - len(o.skip) for o in opened.values()):
            files = ", ".join(f"`{o.item.path}`" for o in opened.values())
            raise DataError("data-no-rows", f"{files} hold no row", hint="add rows below the names of the columns")
        kinds = _kinds(list(opened.values()), types, previous)
    parts = [
        Part(digest, _rows(one, kinds, key, cursor, len(have) + at)) for at, (digest, one) in enumerate(opened.items())
    ]
    return Appended(
        previous=previous, parts=parts, newest_by=(*key, COPY) if key else (), newest_order=cursor if key else ""
    )


def part_digest(sha256: str, reading: dict[str, Any]) -> str:
    """Return the digest of a part: of what is read, and of everything that decides how."""
    return digest_of([_READER, sha256, reading])


def _reading(source: dict[str, Any], types: dict[str, str]) -> dict[str, Any]:
    named = ("key", "cursor", "delimiter", "null_values", "comment", "columns")
    return {name: source.get(name) or None for name in named} | {"types": types}


def _options(source: dict[str, Any]) -> Options:
    return Options(
        delimiter=source.get("delimiter") or ",",
        null_values=tuple(source.get("null_values") or ()),
        comment=source.get("comment") or "",
        columns=tuple(source.get("columns") or ()),
    )


def _check_columns(opened: Any, previous: TableVersion | None, needed: Sequence[str]) -> None:
    """Every item has the columns of the table, which are those of the first one that was ever loaded."""
    files = list(opened)
    wanted = [c.name for c in previous.columns if c.name not in PROVENANCE] if previous else list(files[0].columns)
    since = "loads before" if previous else f"`{files[0].item.path}`"
    for column in needed:
        if column not in wanted:
            what = f"has no column `{column}`, which `key` or `cursor` names"
            raise _without("data-column-missing", files[0], column, what)
    for one in files:
        for column in wanted:
            if column not in one.columns:
                raise _without("data-column-vanished", one, column, f"has no column `{column}`, which {since} had")


def _without(code: str, one: Opened, column: str, what: str) -> DataError:
    close = near(column, one.columns)
    if close:
        hint = "did you mean " + " or ".join(f"`{c}`" for c in close) + "? Name the column as before"
    else:
        hint = f"it has {', '.join(f'`{c}`' for c in one.columns[:8])}"
    return DataError(code, f"`{one.item.path}` {what}", where=one.item.path, hint=hint)


def _kinds(opened: list[Opened], types: dict[str, str], previous: TableVersion | None) -> dict[str, str]:
    """Types of all columns: as declared, else as they were loaded before, else as the values look."""
    if previous is not None:
        loaded = {c.name: _kind_of(c.type) for c in previous.columns if c.name not in PROVENANCE}
        return {name: types.get(name, kind) for name, kind in loaded.items()}
    columns = opened[0].columns
    known = dict(types)
    typed = next((o for o in opened if not o.text), None)
    if typed is not None:
        schema = typed.frame.collect_schema()
        known = {name: type_of(schema[name]) for name in columns} | types
    guessed = infer([o for o in opened if o.text], [c for c in columns if c not in known])
    return {name: known.get(name) or guessed.get(name, "") for name in columns}


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
