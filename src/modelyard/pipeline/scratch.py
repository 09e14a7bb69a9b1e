"""A store to try things in: what it reads comes from the project, what it writes is gone when it is closed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from modelyard._kit.errors import NotFound
from modelyard.records import TableVersion
from modelyard.store import Appended, Blobs, LocalStore, Store, Tables
from modelyard.store.opening import open_address
from modelyard.store.parts import described, new_parts, same_columns

if TYPE_CHECKING:
    import polars as pl

__all__ = ["handed_on", "open_handed", "scratch"]

_SCRATCH = "scratch:"


def handed_on(store: Store, folder: str) -> str:
    """Return an address from which a worker opens a store over this one, which writes below a folder."""
    return f"{_SCRATCH}{folder}\n{store.address}"


@contextmanager
def open_handed(root: Path, address: str) -> Iterator[Store]:
    """Open the store that a runner has handed on to its worker: its own, or one over it that is thrown away."""
    if not address.startswith(_SCRATCH):
        yield open_address(root, address)
        return
    folder, _, real = address.removeprefix(_SCRATCH).partition("\n")
    with scratch(open_address(root, real), within=folder) as overlay:
        yield overlay


@contextmanager
def scratch(store: Store, *, within: str | None = None) -> Iterator[Store]:
    """Give a store over another one: nothing that is written to it reaches that one.

    Args:
        store: The other one.
        within: Folder that what is written goes below, for the time; the system's by default.
    """
    with (
        tempfile.TemporaryDirectory(prefix="modelyard-scratch-", dir=within) as folder,
        LocalStore(Path(folder)) as beneath,
        _Overlay(store, beneath) as overlay,
    ):
        yield overlay


class _Overlay:
    """Reads from one store and writes to another."""

    def __init__(self, real: Store, beneath: Store) -> None:
        self.ledger, self.root, self.address = real.ledger, real.root, real.address
        self.hold, self.holder = real.hold, real.holder
        self.blobs: Blobs = _Blobs(real.blobs, beneath.blobs)
        self.tables: Tables = _Tables(real.tables, beneath.tables)

    def close(self) -> None:
        """Do nothing: both stores are somebody else's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Blobs:
    def __init__(self, real: Blobs, beneath: Blobs) -> None:
        self._real = real
        self._beneath = beneath

    def put(self, data: bytes) -> str:
        return self._beneath.put(data)

    def get(self, digest: str) -> bytes:
        try:
            return self._beneath.get(digest)
        except NotFound:
            return self._real.get(digest)

    def put_folder(self, address: str, files: Mapping[str, bytes]) -> Path:
        return self._beneath.put_folder(address, files)

    def folder(self, address: str) -> Path:
        try:
            return self._beneath.folder(address)
        except NotFound:
            return self._real.folder(address)


class _Tables:
    def __init__(self, real: Tables, beneath: Tables) -> None:
        self._beneath = beneath
        self.read = real.read
        self.verify = real.verify
        self.holds = real.holds

    def write(
        self, name: str, frame: pl.LazyFrame | pl.DataFrame, *, key: str, parents: Sequence[str] = ()
    ) -> TableVersion:
        return self._beneath.write(name, frame, key=key, parents=parents)

    def append(self, name: str, load: Appended, *, key: str) -> TableVersion:
        """Write only what is new, and describe the table as if it stood behind what it is appended to."""
        previous = load.previous
        if previous is None:
            return self._beneath.append(name, load, key=key)
        new = new_parts(load)
        if not new:
            return described(name, load, previous.columns, [])
        fresh = Appended(None, new, newest_by=load.newest_by, newest_order=load.newest_order)
        alone = self._beneath.append(name, fresh, key=key)
        same_columns(name, previous.columns, alone.columns)
        version = described(name, load, previous.columns, new)
        changed: dict[str, Any] = {"rows": version.rows + alone.rows, "address": alone.address}
        return msgspec.structs.replace(version, **changed)
