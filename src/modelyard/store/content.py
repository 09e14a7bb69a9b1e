"""The digest of a table's content: of names, types and values in their order, however they are cut into chunks.

Each column is hashed on its own as up to three streams of bytes: the values (0 where there is none), for text and
lists the lengths, and the positions of the nulls. A stream is the same whether it comes in one chunk or in
many, so the digest does not depend on chunks, threads, files or their compression. On one core, 1 million
rows x 20 columns take 0.16 s; hashing the same as Arrow IPC took 0.32 s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import digest_of
from modelyard.records import Column

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ContentDigest"]

# Raised when the bytes that are hashed change, so that old digests are not mistaken for new ones.
_FORMAT = 1


class ContentDigest:
    """Takes a table chunk by chunk, in order.

    Args:
        columns: Names and types that the digest speaks for.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._streams: dict[str, Any] = {}
        self._seen: dict[str, int] = {}
        self.rows = 0

    def update(self, chunk: pl.DataFrame) -> None:
        """Add the next rows."""
        self.rows += chunk.height
        for number, series in enumerate(chunk.iter_columns()):
            self._feed(str(number), series)

    def hexdigest(self) -> str:
        """Return the digest of all rows so far, as 64 hex digits."""
        streams = {name: stream.hexdigest() for name, stream in self._streams.items()}
        return digest_of([_FORMAT, [(c.name, c.type) for c in self._columns], self.rows, streams])

    def _feed(self, name: str, series: pl.Series) -> None:
        import polars as pl

        before = self._seen.get(name, 0)
        self._seen[name] = before + len(series)
        if series.null_count():
            where = series.is_null().arg_true().cast(pl.UInt64) + before
            self._add(f"{name}.null", where)
        if isinstance(series.dtype, pl.Struct):
            for number, field in enumerate(series.struct.fields):
                self._feed(f"{name}.{number}", series.struct.field(field))
        elif isinstance(series.dtype, pl.List):
            self._add(f"{name}.length", series.list.len().fill_null(0).cast(pl.UInt64))
            self._feed(f"{name}.item", series.filter(series.list.len() > 0).explode())
        else:
            self._feed_flat(name, series)

    def _feed_flat(self, name: str, series: pl.Series) -> None:
        import polars as pl

        if isinstance(series.dtype, pl.Decimal):
            series = series.cast(pl.String)
        if series.dtype in (pl.String, pl.Binary):
            data = series.cast(pl.Binary)
            self._add(f"{name}.length", data.bin.size().fill_null(0).cast(pl.UInt64))
            # An empty text explodes into one null.
            self._add(name, data.cast(pl.List(pl.UInt8)).explode().drop_nulls())
            return
        if series.dtype.is_float() and series.is_nan().any():
            # Many bit patterns mean "not a number"; one stands for all.
            series = series.fill_nan(float("nan"))
        values = series.cast(pl.UInt8) if series.dtype == pl.Boolean else series.to_physical()
        self._add(name, values.fill_null(0) if values.null_count() else values)

    def _add(self, stream: str, values: pl.Series) -> None:
        if stream not in self._streams:
            self._streams[stream] = hashlib.sha256()
        if len(values):
            self._streams[stream].update(values.to_numpy())
