"""A table at one moment: what it holds, by digest, and which tables it came from."""

from __future__ import annotations

import msgspec

from modelyard.records.base import Value

__all__ = ["Column", "TableVersion"]


class Column(msgspec.Struct, frozen=True):
    """One column: its name and its Polars data type as text, e.g. `Int64`, `String`."""

    name: str
    type: str


class TableVersion(Value, frozen=True, kw_only=True, tag="table"):
    """One immutable version of a table.

    Attributes:
        name: Name of the table in the project, e.g. `load.applicants`.
        digest: Digest of the content in its order; equal content has an equal digest.
        rows: Rows stored. For a table with `newest_by`, rows before the newest by key are taken.
        columns: Names and types in order.
        parents: Digests of the tables it was made from.
        address: Where the store keeps it, e.g. `load.applicants@3`.
        newest_by: Key columns; a reader sees, of the rows with one key, only the newest.
        newest_order: Column that says which row is the newest; empty means the one loaded last.
        files: SHA-256 of each of its files, in the order of loading: what `verify` holds the stored bytes against. Not
            part of `digest`, since equal rows may be written as other bytes.
        parts: Digests of the loads that were appended to make it, in order; empty for a table written whole.
    """

    name: str
    digest: str
    rows: int
    columns: tuple[Column, ...]
    parents: tuple[str, ...] = ()
    address: str = ""
    newest_by: tuple[str, ...] = ()
    newest_order: str = ""
    parts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """The digest of the content."""
        return self.digest
