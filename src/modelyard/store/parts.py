"""What makes a table that is loaded part by part: which parts are new, whether they fit, which rows are seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import DataError
from modelyard.records import Column, TableVersion
from modelyard.store.base import Appended, Part

if TYPE_CHECKING:
    import polars as pl

__all__ = ["described", "new_parts", "newest_by_key", "same_columns"]

# Position of a row while the newest are looked for.
_PLACE = "__modelyard_place"


def newest_by_key(frame: pl.LazyFrame, by: Sequence[str], order: str = "") -> pl.LazyFrame:
    """Return of the rows with one key only the newest, in the order they were in.

    Args:
        frame: Rows in the order of loading.
        by: Key columns; nulls are equal to each other.
        order: Column that says which row is newest, nulls oldest; of equals, and without it, the last row.
    """
    import polars as pl

    # Windows keep the order and take half of the time of `unique(keep="last", maintain_order=True)`. One after
    # the other: nested in one expression they take quadratic time (Polars 2.1).
    place = pl.col(_PLACE)
    frame = frame.with_row_index(_PLACE)
    if order:
        frame = frame.filter(pl.col(order).eq_missing(pl.col(order).max().over(by)))
    return frame.filter(place == place.max().over(by)).drop(_PLACE)


def new_parts(load: Appended) -> list[Part]:
    """Return the parts that the table does not have, each once, in order."""
    known = set(load.previous.parts) if load.previous else set()
    new = []
    for part in load.parts:
        if part.digest not in known:
            known.add(part.digest)
            new.append(part)
    return new


def described(name: str, load: Appended, columns: tuple[Column, ...], new: Sequence[Part]) -> TableVersion:
    """Return the version as it will be, but for the rows of the new parts and its address."""
    previous = load.previous
    # A table that was written whole is its own first part.
    before = (previous.parts or (previous.digest,)) if previous else ()
    parts = (*before, *(part.digest for part in new))
    return TableVersion(
        name=name,
        digest=digest_of([[(c.name, c.type) for c in columns], load.newest_by, load.newest_order, parts]),
        rows=previous.rows if previous else 0,
        columns=columns,
        parents=(previous.digest,) if previous else (),
        address=previous.address if previous else "",
        newest_by=load.newest_by,
        newest_order=load.newest_order,
        parts=parts,
    )


def same_columns(name: str, before: Sequence[Column], now: Sequence[Column]) -> None:
    """Refuse a part whose columns are not those of the table.

    Raises:
        DataError: It names the columns that vanished, appeared or changed their type.
    """
    old = {c.name: c.type for c in before}
    new = {c.name: c.type for c in now}
    what = [f"`{n}` vanished" for n in old if n not in new]
    what += [f"`{n}` ({t}) appeared" for n, t in new.items() if n not in old]
    what += [f"`{n}` changed from {t} to {new[n]}" for n, t in old.items() if new.get(n, t) != t]
    if what:
        raise DataError(
            "data-schema-changed",
            f"new rows of table `{name}` have other columns: {', '.join(what)}",
            hint="mend the new file, or load the whole table again under another name",
        )
