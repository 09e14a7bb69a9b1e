"""Many rows of one request, kept by column: as JSON by row they would cost more than the model that answers them."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

__all__ = ["Packed"]


class Packed(msgspec.Struct, gc=False):
    """Rows whose numbers are the bytes of a matrix.

    Attributes:
        count: How many rows.
        names: Columns of the matrix.
        numbers: Its values, row by row: little-endian float32, or float64 where `wide`; NaN stands for none.
        wide: Whether they are float64.
        texts: Further columns, one value a row.
        under: Key beneath which the numbers of a row stand; empty: beside the others.
    """

    count: int
    names: list[str]
    numbers: bytes
    wide: bool
    texts: dict[str, list[Any]]
    under: str = ""

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self.count

    def rows(self) -> list[dict[str, Any]]:
        """Return each row as what it would be in JSON."""
        names, under = self.names, self.under
        unpack = struct.iter_unpack(f"<{len(names)}{'d' if self.wide else 'f'}", self.numbers) if names else ()
        # A number that is not itself is none.
        made = [dict(zip(names, [v if v == v else None for v in row], strict=True)) for row in unpack]
        made = made or [{} for _ in range(self.count)]
        if under:
            made = [{under: row} for row in made]
        for name, values in self.texts.items():
            for row, value in zip(made, values, strict=True):
                row[name] = value
        return made
