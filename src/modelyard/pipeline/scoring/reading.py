"""Open the rows that are to be answered: a file, a folder, or a version of a table, as a stream that begins anywhere.

A value means what it meant in training: CSV is read as the table is declared, and a column that the model takes has
the type it had, so that `007` stays a text where it was one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_of
from modelyard._kit.errors import DataError, NotFound
from modelyard._kit.text import plural
from modelyard.data.base import FILE, LINE, PROVENANCE, RAW, ROW, Item, Opened, Options
from modelyard.data.readers import conform, open_file
from modelyard.data.sources import FileSource
from modelyard.records import Signature, TableVersion, values_of

if TYPE_CHECKING:
    import polars as pl

    from modelyard.store.base import Store

__all__ = ["Rows", "open_rows"]

_JSON = (".json", ".jsonl", ".ndjson")
_VERSION = re.compile(r"(.+)@([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that can be read in a stream, again and again, in the same order.

    Attributes:
        name: What they were named by.
        digest: Digest of their content and of how it is read; equal digests mean equal rows.
        columns: Names of the columns, in order.
        count: How many.
        read: Returns the rows from a position on, as frames of about so many rows.
        place: File or folder that they are read from; none for a version of a table.
    """

    name: str
    digest: str
    columns: tuple[str, ...]
    count: int
    read: Callable[[int, int], Iterator[pl.DataFrame]]
    place: Path | None = None


def open_rows(
    name: str,
    signature: Signature,
    *,
    options: Options | None = None,
    types: Mapping[str, str] | None = None,
    path: Path | None = None,
    store: Store | None = None,
) -> Rows:
    """Open what is named: a CSV, Parquet or JSON file, a folder of them, a Delta table, or `TABLE@VERSION`.

    Args:
        name: Path; `TABLE@VERSION` of the store, or `FOLDER@VERSION` of a Delta table.
        signature: What the model takes.
        options: How CSV is written.
        types: Declared type of columns, see `modelyard.data.types`.
        path: File that holds the rows, where `name` is not its path (standard input).
        store: Store that knows the tables.

    Raises:
        NotFound: There is nothing of that name.
        DataError: It cannot be read.
    """
    import polars as pl

    options, types = options or Options(), types or {}
    place, version = (path or Path(name)).expanduser(), None
    if not place.exists() and (matched := _VERSION.fullmatch(name)):
        if store is not None and (kept := _version(store, name)):
            return _lazily(name, kept.digest, store.tables.read(kept), kept.rows)
        if Path(matched[1], "_delta_log").is_dir():
            place, version = Path(matched[1]), int(matched[2])
    if not place.exists():
        if store is not None and path is None and (newest := _version(store, name, newest=True)):
            hint = f"a table of a run goes by its address: `{newest.address}`; `modelyard show tables` lists them"
            raise NotFound("file-not-found", f"no file `{name}`", hint=hint)
        folder = place.parent
        raise NotFound.of("file", name, (str(folder / p.name) for p in folder.iterdir()) if folder.is_dir() else ())
    try:
        if (place / "_delta_log").is_dir():
            return replace(_delta(place, version, name), place=place)
        if place.is_file() and (kind := _json_kind(place)):
            return replace(_json(place, name, kind, _items(place, store)[0]), place=place)
        items = _items(place, store)
        opened = [_open(Path(item.path), _shown(item, place, name), options, signature) for item in items]
    except pl.exceptions.PolarsError as error:
        raise _unreadable(name, error) from None
    return replace(_files(name, opened, options, types, signature), place=place)


def _items(place: Path, store: Store | None) -> list[Item]:
    """Return the file, or those of the folder, with their digests; the project remembers those."""
    return FileSource(store.root if store is not None else place.parent).list(str(place.absolute()))


def _shown(item: Item, place: Path, name: str) -> Item:
    """Return an item under the name that it is spoken of."""
    return replace(item, path=name if place.is_file() else (Path(name) / Path(item.path).name).as_posix())


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(
        "predict-unreadable",
        f"`{name}` cannot be read: {(str(error).splitlines() or ['it is damaged'])[0]}",
        where=name,
        hint="give CSV with a header, Parquet, or one JSON object a line",
    )


# -- what has types of its own


def _version(store: Store, name: str, *, newest: bool = False) -> TableVersion | None:
    """Return a version of a table by its address, or the newest of its name, from the runs that made it."""
    before = ""
    while runs := store.ledger.runs(before=before):
        for one in runs:
            # A list of runs holds none of their steps.
            run = store.ledger.run(one.id)
            for version in values_of(run, TableVersion) if run is not None else ():
                if name == (version.name if newest else version.address):
                    return version
        before = runs[-1].id
    return None


def _lazily(name: str, digest: str, frame: pl.LazyFrame, count: int) -> Rows:
    import polars as pl

    def read(start: int, size: int) -> Iterator[pl.DataFrame]:
        try:
            yield from _batches(frame.slice(start) if start else frame, size, count - start, name)
        except pl.exceptions.PolarsError as error:
            raise _unreadable(name, error) from None

    return Rows(name, digest, tuple(frame.collect_schema().names()), count, read)


def _batches(frame: pl.LazyFrame, size: int, count: int, name: str) -> Iterator[pl.DataFrame]:
    """Yield `count` rows in frames of about `size`, at least one, which knows the columns.

    Raises:
        DataError: They are not as many (`predict-rows-lost`).
    """
    none, got = True, 0
    for batch in frame.collect_batches(chunk_size=size, maintain_order=True, lazy=True, engine="streaming"):
        none, got = False, got + batch.height
        yield batch
    # A stream that is broken off, by a signal or a file that shrank, ends like one that is whole.
    if got != count:
        raise DataError(
            "predict-rows-lost",
            f"`{name}` has {plural(count, 'row')}, of which {got:,} came: it changed, or reading was broken off",
            where=name,
            hint="run it again",
        )
    if none:
        yield frame.head(0).collect()


def _height(frame: pl.LazyFrame) -> int:
    import polars as pl

    return int(frame.select(pl.len()).collect(engine="streaming").item())


def _delta(place: Path, version: int | None, name: str) -> Rows:
    import polars as pl
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        table = DeltaTable(str(place), version=version)
        adds = table.get_add_actions(flatten=True)
        # The files of a Delta table never change: their names and sizes say which version it is.
        files = sorted(zip(adds["path"].to_pylist(), adds["size_bytes"].to_pylist(), strict=True))
        frame = pl.scan_delta(table)
        return _lazily(name, digest_of(["delta", table.version(), files]), frame, _height(frame))
    except DeltaError as error:
        raise _unreadable(name, error) from None


def _json_kind(path: Path) -> bytes:
    """Return `{` or `[` for a file of JSON, by its first character or its name."""
    with path.open("rb") as file:
        first = file.read(4096).lstrip()[:1]
    if first in (b"{", b"["):
        return first
    return b"{" if path.suffix.lower() in _JSON else b""


def _json(path: Path, name: str, kind: bytes, item: Item) -> Rows:
    """JSON has types of its own; a number given for a category is made a text by the encoder, as in training."""
    import polars as pl

    if kind == b"[":
        frame = pl.read_json(path)
        return _lazily(name, item.sha256, frame.lazy(), frame.height)
    lines = pl.scan_ndjson(path, infer_schema_length=None)
    return _lazily(name, item.sha256, lines, _height(lines))


# -- files of tables


def _open(path: Path, item: Item, options: Options, signature: Signature) -> Opened:
    """Open a CSV file; one with names of its own, or without the target, is as good as one like the table's."""
    if not options.columns:
        return open_file(path, item, options)
    try:
        opened = open_file(path, item, replace(options, columns=()))
        if {f.name for f in signature.features} <= set(opened.columns):
            return opened
    except DataError:
        pass  # the first line is a row, and no row has to be usable as names
    try:
        return open_file(path, item, options)
    except DataError as error:
        without = tuple(c for c in options.columns if c != signature.problem.target)
        if error.code != "data-header" or without == options.columns:
            raise
        try:
            return open_file(path, item, replace(options, columns=without))
        except DataError:
            raise error from None


def _files(
    name: str, opened: Sequence[Opened], options: Options, types: Mapping[str, str], signature: Signature
) -> Rows:
    """Read files one after another; they have the same columns, and each column one type in all of them."""
    import polars as pl

    columns = opened[0].columns
    for other in opened[1:]:
        if set(other.columns) != set(columns):
            odd = sorted(set(other.columns) ^ set(columns))[0]
            raise DataError(
                "predict-columns-differ",
                f"`{opened[0].item.path}` and `{other.item.path}` do not have the same columns: one has no `{odd}`",
                where=other.item.path,
                hint="score them one by one, or give them the same columns",
            )
    kinds = _kinds(opened, types, signature)
    digest = digest_of([[o.item.sha256 for o in opened], kinds, list(options.null_values), repr(options)])

    def read(start: int, size: int) -> Iterator[pl.DataFrame]:
        for one in opened:
            count = one.rows - len(one.skip)
            if start and start >= count:
                start -= count
                continue
            try:
                # Before anything is cast, if every row in the file is one.
                some = replace(one, frame=one.frame.slice(start)) if start and not one.skip else one
                rows = conform(some, kinds)
                left = rows.slice(start) if one.skip and start else rows
                for frame in _batches(left, size, count - start, one.item.path):
                    yield _clean(frame, one)
            except pl.exceptions.PolarsError as error:
                raise _unreadable(one.item.path, error) from None
            start = 0

    return Rows(name, digest, columns, sum(o.rows - len(o.skip) for o in opened), read)


def _clean(frame: pl.DataFrame, opened: Opened) -> pl.DataFrame:
    """Return rows without what says where they came from.

    Raises:
        DataError: A value is not what its column holds.
    """
    import polars as pl

    bad = frame.filter(pl.col(RAW).is_not_null()).head(1) if frame[RAW].null_count() < frame.height else None
    if bad is not None:
        found = json.loads(bad[RAW][0])
        column, value = next((c, v) for c, v in found.items() if v is not None)
        raise _not_read(opened, bad[LINE][0], column if column != LINE else "", str(value))
    return frame.drop([c for c in (FILE, ROW, *PROVENANCE) if c in frame.columns])


def _not_read(opened: Opened, line: int, column: str, value: str) -> DataError:
    if column:
        what = f"`{column}` is `{value[:60]}`, which the model cannot take"
        hint = f'mend it, or name it as missing: `null_values: ["{value[:60]}"]` at the table in modelyard.yaml'
    else:
        what, hint = f"the line `{value[:60]}` has not {len(opened.columns)} cells", "mend the line"
    return DataError("predict-unreadable", what, where=f"{opened.item.path}:{line}", hint=hint)


def _kinds(opened: Sequence[Opened], types: Mapping[str, str], signature: Signature) -> dict[str, Any]:
    """The type of each column: of what the model takes as in training, of the others as declared or as they look."""
    from modelyard.data.types import infer

    columns = opened[0].columns
    text = [o for o in opened if o.text]
    if not text:
        return dict.fromkeys(columns, "")
    numbers = {f.name for f in signature.numbers}
    known = {c: kind for c, kind in types.items() if c not in numbers or kind in ("int", "float", "bool")}
    known.update({f.name: "text" for f in signature.categories})
    known.update({f.name: "bool" for f in signature.numbers if f.source == "Boolean"})
    looks = infer(text, [c for c in columns if c not in known])
    looks.update({c: "float" for c in numbers & looks.keys() if looks[c] != "int"})
    return {c: known.get(c) or looks[c] for c in columns}
