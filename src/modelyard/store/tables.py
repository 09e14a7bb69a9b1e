"""Table versions on Delta Lake, on one machine.

Each load is one Parquet file, written by Polars as a stream and committed to the Delta log together with
the key of the step that made it: a step that is done again after a crash finds its version and adopts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import digest_file
from modelyard._kit.errors import DataError, NotFound, Tampered
from modelyard._kit.text import plural
from modelyard.records import TableVersion
from modelyard.store.base import Appended
from modelyard.store.delta import commit, noted, opened, stands
from modelyard.store.disk import check_writable, explained
from modelyard.store.dtypes import restored_type
from modelyard.store.locks import Locks
from modelyard.store.parquet import File, Rows, number_of, remove_left
from modelyard.store.parts import described, new_parts, newest_by_key, same_columns

if TYPE_CHECKING:
    import polars as pl
    from deltalake import DeltaTable

__all__ = ["DeltaTables"]

# How far back a version with the same key is looked for.
_RECENT = 32
# What does not stand in the name of a folder as it is; a leading dot would hide it.
_ODD = re.compile(r"^\.|[^A-Za-z0-9._-]")
_KEY = "modelyard.key"
_TABLE = "modelyard.table"


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
            delta = self._head(name)
            if delta is not None and (found := self._adopt(delta, name, key)):
                return found
            rows = Rows.of(frame)
            file = rows.write(self._folder(name), number=1)
            content = file.content(rows.columns)
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
            delta = self._head(name)
            rows = [Rows.of(part.frame) for part in new]
            columns = previous.columns if previous else rows[0].columns
            for part in rows:
                same_columns(name, columns, part.columns)
            version = described(name, load, columns, new)
            if delta is not None and (found := self._adopt(delta, name, key)) and found.digest == version.digest:
                return found
            number = 1
            if previous is not None:
                delta = self._back_to(previous, delta)
                number += max(map(number_of, self._files(previous, delta)))
            order = [c.name for c in columns]
            files = [part.select(order).write(self._folder(name), number + i) for i, part in enumerate(rows)]
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

    def holds(self, version: TableVersion) -> bool:
        """Say at a glance whether a version is there; `verify` looks at every byte."""
        name, _, number = version.address.rpartition("@")
        return number.isdigit() and self._is(version, self._folder(name), int(number))

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
                f"table version `{version.address}` has {plural(len(files), 'file')} of {len(version.files)} recorded",
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
                remove_left(folder)

    def _head(self, name: str) -> DeltaTable | None:
        """Return a table at its newest version; none if there is no table."""
        from deltalake.exceptions import DeltaError

        folder = self._folder(name)
        try:
            return opened(folder)
        except DeltaError as error:
            # Nothing can be written behind a record that cannot be read, and which rows it named nobody knows.
            raise Tampered(
                "table-changed",
                f"the log of table `{name}` is damaged: {str(error).splitlines()[0]}",
                where=str(folder / "_delta_log"),
                hint=f"put the log back, or delete `{folder}` and run again: what made the table makes it again",
            ) from error

    def _at(self, version: TableVersion) -> DeltaTable:
        from deltalake.exceptions import DeltaError

        name, _, number = version.address.rpartition("@")
        try:
            delta = opened(self._folder(name), int(number)) if number.isdigit() else None
        except DeltaError:
            delta = None
        if delta is None or not self._is(version, self._folder(name), int(number)):
            raise NotFound(
                "table-not-found",
                f"the store has no table version `{version.address or version.name}`",
                hint="run again: what made it makes it again",
            )
        return delta

    def _is(self, version: TableVersion, folder: Path, number: int) -> bool:
        """Say whether what was committed under a number is this version.

        Where somebody has deleted the folder, its numbers begin anew, and stand for other rows than the ledger knows.
        """
        if not stands(folder, number):
            return False
        there = _version_in(noted(folder, number))
        return there is not None and _parts(there) == _parts(version)

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
        return [folder / name for name in sorted(sizes, key=number_of)]

    def _adopt(self, delta: DeltaTable, name: str, key: str) -> TableVersion | None:
        """Return the recent version that was written for this key, if its files are all there."""
        head = delta.version()
        for number in range(head, max(-1, head - _RECENT), -1):
            info = noted(self._folder(name), number)
            if info.get(_KEY) != key or (found := _version_in(info)) is None:
                continue
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

    def _commit(
        self,
        delta: DeltaTable | None,
        version: TableVersion,
        schema: pl.Schema,
        files: Sequence[File],
        *,
        key: str,
        mode: str,
    ) -> TableVersion:
        notes = {_KEY: key, _TABLE: msgspec.json.encode(version).decode()}
        number = commit(self._folder(version.name), delta, schema, files, mode=mode, notes=notes)
        return msgspec.structs.replace(version, address=f"{version.name}@{number}")


def _version_in(info: Mapping[str, Any]) -> TableVersion | None:
    """Return the version that was noted with a commit; none if there is none, or nobody can read it."""
    try:
        return msgspec.json.decode(msgspec.convert(info.get(_TABLE), str), type=TableVersion)
    except msgspec.DecodeError:
        return None


def _parts(version: TableVersion) -> tuple[str, ...]:
    """Return what its rows are made of; one that is seen in another way, such as by another key, has the same."""
    return version.parts or (version.digest,)
