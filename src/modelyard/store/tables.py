"""Table versions on Delta Lake, on one machine.

Each load is one Parquet file, written by Polars as a stream and committed to the Delta log together with
the key of the step that made it: a step that is done again after a crash finds its version and adopts it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import digest_file
from modelyard._kit.errors import DataError, NotFound, Tampered, UserError
from modelyard.records import Column, TableVersion
from modelyard.store.base import Appended
from modelyard.store.content import ContentDigest
from modelyard.store.disk import check_writable, explained
from modelyard.store.dtypes import kept_type, restored_type, stored_type
from modelyard.store.locks import Locks
from modelyard.store.parts import described, new_parts, newest_by_key, same_columns

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable, Schema

__all__ = ["DeltaTables"]

# Rows decoded at once when a file is read back for its digest: also the size of a row group.
_ROWS_AT_ONCE = 1 << 18
# How far back a version with the same key is looked for.
_RECENT = 32
# What does not stand in the name of a folder as it is; a leading dot would hide it.
_ODD = re.compile(r"^\.|[^A-Za-z0-9._-]")
# What a URL would decode.
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_KEY = "modelyard.key"
_TABLE = "modelyard.table"
# No version expires: runs and cards point at old ones.
_CONFIGURATION: Mapping[str, str | None] = {
    # Every opening reads the log from the last checkpoint on.
    "delta.checkpointInterval": "10",
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}


@dataclass(frozen=True, slots=True)
class _File:
    """A Parquet file that is written and hidden until it is committed."""

    path: Path
    rows: int

    @property
    def final(self) -> Path:
        return self.path.with_name(self.path.name.removeprefix(".").removesuffix(".part"))


class DeltaTables:
    """Tables as Delta Lake folders, one a name.

    Args:
        root: Folder of the tables; made at first use.
        locks: One writer of a table at a time.
    """

    def __init__(self, root: Path, locks: Locks) -> None:
        self._root = root
        self._locks = locks

    def write(
        self, name: str, frame: pl.LazyFrame | pl.DataFrame, *, key: str, parents: Sequence[str] = ()
    ) -> TableVersion:
        """Write a whole new version of a table; see `Tables.write`.

        Raises:
            DataError: A column has a type that no table can keep, or there is no column.
        """
        with self._writing(name):
            delta = self._open(name)
            if delta is not None and (found := self._adopt(delta, name, key)):
                return found
            rows = _Rows.of(frame)
            file = self._put(name, rows, number=1)
            content = self._read_back(file, rows)
            version = TableVersion(
                name=name,
                digest=content.hexdigest(),
                rows=content.rows,
                columns=rows.columns,
                parents=tuple(parents),
                files=(digest_file(file.path),),
            )
            return self._commit(delta, version, rows.stored, [file], key=key, mode="overwrite")

    def append(self, name: str, load: Appended, *, key: str) -> TableVersion:
        """Append the parts that the table does not have yet, exactly once; see `Tables.append`.

        Raises:
            DataError: A part's columns are not those of the table, or there is nothing to make a table of.
            NotFound: The version to append to is gone.
        """
        previous = load.previous
        if previous is not None and previous.name != name:
            raise ValueError(f"`{previous.name}` is not a version of `{name}`")
        new = new_parts(load)
        if previous is None and not new:
            raise DataError(
                "data-nothing-to-load", f"table `{name}` has no part to begin with", hint="give at least one file"
            )
        with self._writing(name):
            if not new and previous is not None:
                # The same rows, perhaps read by another key.
                same = described(name, load, previous.columns, [])
                return previous if same.digest == previous.digest else same
            delta = self._open(name)
            rows = [_Rows.of(part.frame) for part in new]
            columns = previous.columns if previous else rows[0].columns
            for part in rows:
                same_columns(name, columns, part.columns)
            version = described(name, load, columns, new)
            if delta is not None and (found := self._adopt(delta, name, key)) and found.digest == version.digest:
                return found
            number = 1
            if previous is not None:
                delta = self._back_to(previous, delta)
                number += max(map(_number, self._files(previous, delta)))
            order = [c.name for c in columns]
            files = [self._put(name, part.select(order), number + i) for i, part in enumerate(rows)]
            version = msgspec.structs.replace(
                version,
                rows=version.rows + sum(f.rows for f in files),
                files=(*(previous.files if previous else ()), *(digest_file(f.path) for f in files)),
            )
            return self._commit(
                delta, version, rows[0].select(order).stored, files, key=key, mode="append" if previous else "overwrite"
            )

    def read(self, version: TableVersion, *, raw: bool = False) -> pl.LazyFrame:
        """Return the rows of exactly this version in the order of loading, newest by key unless `raw`.

        Raises:
            NotFound: The store has no such version.
            Tampered: A file of it is gone or has another size.
        """
        import polars as pl

        # The log names its files in any order; their numbers are the order of loading.
        frame = pl.scan_parquet(self._files(version, self._at(version)), glob=False, hive_partitioning=False)
        to = {c.name: restored_type(c.type) for c in version.columns}
        frame = frame.select(pl.col(n) if t is None else pl.col(n).cast(t) for n, t in to.items())
        if raw or not version.newest_by:
            return frame
        return newest_by_key(frame, version.newest_by, version.newest_order)

    def verify(self, version: TableVersion) -> None:
        """Hold every byte of a version against what was recorded; see `Tables.verify`.

        Raises:
            NotFound: The store has no such version.
            Tampered: A file of it is gone or was changed.
        """
        files = self._files(version, self._at(version))
        if len(files) != len(version.files):
            raise Tampered(
                "table-changed",
                f"table version `{version.address}` has {len(files)} files, {len(version.files)} were recorded",
                hint="run again in a fresh copy of the project",
            )
        for path, digest in zip(files, version.files, strict=True):
            if digest_file(path) != digest:
                raise Tampered(
                    "table-changed",
                    f"file `{path.name}` of table version `{version.address}` was changed after it was written",
                    where=str(path),
                    hint="put the file back, or run again in a fresh copy of the project",
                )

    # -- inside

    def _folder(self, name: str) -> Path:
        # Keeps `/` and `..` out of the path. Not with `%`: Delta takes it for the escape of a URL.
        return self._root / _ODD.sub(lambda odd: "".join(f"~{byte:02x}" for byte in odd[0].encode()), name)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        folder = self._folder(name)
        with explained(folder), self._locks.wait(f"table.{name}"):
            folder.mkdir(parents=True, exist_ok=True)
            check_writable(folder)
            try:
                yield
            finally:
                # Ours if something failed, or of a process that was killed: nobody else writes here now.
                for left in folder.glob(".*.part"):
                    left.unlink(missing_ok=True)

    def _open(self, name: str, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(_uri(self._folder(name)), version=version)
        except TableNotFoundError:
            return None

    def _at(self, version: TableVersion) -> DeltaTable:
        from deltalake.exceptions import DeltaError

        name, _, number = version.address.rpartition("@")
        try:
            delta = self._open(name, int(number)) if number.isdigit() else None
        except DeltaError:
            delta = None
        if delta is None:
            raise NotFound(
                "table-not-found",
                f"the store has no table version `{version.address or version.name}`",
                hint="run again: what made it makes it again",
            )
        return delta

    def _files(self, version: TableVersion, delta: DeltaTable) -> list[Path]:
        """Return the files of a version in the order of loading; `delta` stands at it."""
        folder = self._folder(version.address.rpartition("@")[0])
        adds = delta.get_add_actions(flatten=True)
        sizes = dict(zip(adds["path"].to_pylist(), adds["size_bytes"].to_pylist(), strict=True))
        for name, size in sizes.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != size:
                what = "has another size than when it was written" if path.is_file() else "is gone"
                raise Tampered(
                    "table-changed",
                    f"a file of table version `{version.address}` {what}",
                    where=str(path),
                    hint="put the file back, or run again with the step forced",
                )
        return [folder / name for name in sorted(sizes, key=_number)]

    def _adopt(self, delta: DeltaTable, name: str, key: str) -> TableVersion | None:
        """Return the recent version that was written for this key, if its files are all there."""
        head = delta.version()
        for number in range(head, max(-1, head - _RECENT), -1):
            info = _commit_info(self._folder(name), number)
            if info.get(_KEY) != key:
                continue
            found = msgspec.json.decode(info[_TABLE], type=TableVersion)
            found = msgspec.structs.replace(found, address=f"{name}@{number}")
            try:
                self._files(found, self._at(found))
            except (NotFound, Tampered):
                continue
            return found
        return None

    def _back_to(self, version: TableVersion, head: DeltaTable | None) -> DeltaTable:
        """Return the table with exactly this version's files at its head."""
        if head is not None and version.address == f"{version.name}@{head.version()}":
            return head
        at = self._at(version)
        table = head or at
        # Whatever stands above it was left by a crash, or belongs to a run that went another way.
        table.restore(at.version())
        return table

    def _put(self, name: str, rows: _Rows, number: int) -> _File:
        import polars as pl

        path = self._folder(name) / f".part-{number:06d}-{secrets.token_hex(4)}.parquet.part"
        # Snappy: what Delta writes everywhere, and with zstd a quarter more CPU for 15 % less disk.
        rows.frame.sink_parquet(path, compression="snappy", row_group_size=_ROWS_AT_ONCE, maintain_order=True)
        _sync(path)
        return _File(path, pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())

    def _read_back(self, file: _File, rows: _Rows) -> ContentDigest:
        """Digest what readers will see, from the file: never two copies of the table in memory."""
        import polars as pl

        content = ContentDigest(rows.columns)
        written = pl.scan_parquet(file.path, glob=False)
        for start in range(0, file.rows, _ROWS_AT_ONCE):
            content.update(written.slice(start, _ROWS_AT_ONCE).collect())
        return content

    def _commit(
        self,
        delta: DeltaTable | None,
        version: TableVersion,
        schema: pl.Schema,
        files: Sequence[_File],
        *,
        key: str,
        mode: str,
    ) -> TableVersion:
        from deltalake import CommitProperties, PostCommitHookProperties, Schema
        from deltalake.transaction import AddAction, create_table_with_add_actions

        folder = self._folder(version.name)
        added = []
        for file in files:
            at = file.path.rename(file.final).stat()
            stats = msgspec.json.encode({"numRecords": file.rows}).decode()
            added.append(AddAction(file.final.name, at.st_size, {}, int(at.st_mtime * 1000), True, stats))
        properties = CommitProperties(custom_metadata={_KEY: key, _TABLE: msgspec.json.encode(version).decode()})
        hook = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
        columns = Schema.from_arrow(schema)
        if delta is None:
            create_table_with_add_actions(
                _uri(folder),
                columns,
                added,
                configuration=_CONFIGURATION,
                commit_properties=properties,
                post_commithook_properties=hook,
            )
        else:
            _allow(delta, columns)
            delta.create_write_transaction(
                added, mode, columns, commit_properties=properties, post_commithook_properties=hook
            )
            delta.update_incremental()
        number = 0 if delta is None else delta.version()
        _sync(_log(folder, number), folder / "_delta_log", folder)
        return msgspec.structs.replace(version, address=f"{version.name}@{number}")


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows on their way into a table: as they will lie in the file."""

    frame: pl.LazyFrame
    columns: tuple[Column, ...]
    stored: pl.Schema

    @classmethod
    def of(cls, frame: pl.LazyFrame | pl.DataFrame) -> _Rows:
        import polars as pl

        lazy = frame.lazy()
        given = lazy.collect_schema()
        if not given:
            raise DataError("data-no-columns", "a table needs at least one column", hint="return a frame with columns")
        kept = {n: kept_type(n, t) for n, t in given.items()}
        stored = pl.Schema({n: stored_type(n, t) for n, t in kept.items()})
        lazy = lazy.with_columns(pl.col(n).cast(t) for n, t in stored.items() if t != given[n])
        return cls(lazy, tuple(Column(n, str(t)) for n, t in kept.items()), stored)

    def select(self, names: Sequence[str]) -> _Rows:
        import polars as pl

        if names == [c.name for c in self.columns]:
            return self
        by_name = {c.name: c for c in self.columns}
        stored = pl.Schema({n: self.stored[n] for n in names})
        return _Rows(self.frame.select(names), tuple(by_name[n] for n in names), stored)


def _allow(delta: DeltaTable, columns: Schema) -> None:
    """Let the table hold times without a zone; Delta wants that said before the first one comes."""
    from deltalake import TableFeatures

    if "timestamp_ntz" in columns.to_json() and "timestampNtz" not in (delta.protocol().writer_features or ()):
        delta.alter.add_feature(TableFeatures.TimestampWithoutTimezone, allow_protocol_versions_increase=True)


def _log(folder: Path, number: int) -> Path:
    return folder / "_delta_log" / f"{number:020d}.json"


def _commit_info(folder: Path, number: int) -> dict[str, Any]:
    """Return what was noted when a version was committed; `DeltaTable.history` finds nothing under a folder `#1`."""
    for line in _log(folder, number).read_bytes().splitlines():
        action = msgspec.json.decode(line)
        if "commitInfo" in action:
            info: dict[str, Any] = action["commitInfo"]
            return info
    return {}


def _uri(folder: Path) -> str:
    path = folder.absolute()
    if odd := _ESCAPE.search(str(path)):
        # Delta decodes it once too often, and writes beside the table.
        raise UserError(
            "store-odd-path",
            f"tables cannot be kept under a folder with `{odd[0]}` in its name: `{path}`",
            hint="rename the folder",
        )
    # A bare path with `%` or `#` in it would be read as a URL.
    return path.as_uri()


def _number(path: Path | str) -> int:
    """Return the place of a file in the order of loading."""
    return int(Path(path).name.split("-")[1])


def _sync(*paths: Path) -> None:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
