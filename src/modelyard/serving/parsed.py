"""The rows of one request, whatever they came as, and what is said of them once they are fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.serving.errors import HttpError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["PACKED_ROWS", "WARNINGS", "WHOLE", "Parsed", "joined", "warning"]

# What a warning names that is about no column: it is about the rows as a whole, or their answers.
WHOLE = "*"
# Kinds of warnings, in the words of `deploy.guards` where it has one.
WARNINGS = ("unseen", "out_of_range", "missing", "outlier", "clipped", "check")
# From so many rows on they are logged as bytes.
PACKED_ROWS = 256


class Parsed(msgspec.Struct, eq=False):
    """Rows of one request that have the columns and types of the signature.

    Args:
        count: How many.
        packed: Their numbers as the bytes of float64, one row after the other; a missing one is NaN.
        categories: Their texts, rows x categories; a missing one is empty.
        raw: The JSON list of the rows as it was sent, if it stands alone.
        numbers: Their numbers where they came as an array, rows x numbers: float64 or float32.

    Attributes:
        warnings: What is unusual but no mistake; known once they are fitted.
        error: Why the model cannot take them; known once they are fitted.
    """

    count: int
    packed: bytes | None
    categories: Array | None
    raw: bytes = b""
    numbers: Array | None = None
    warnings: Sequence[dict[str, Any]] = ()
    error: HttpError | None = None

    @classmethod
    def of(cls, numeric: Array | None, categorical: Array | None) -> Parsed:
        """Take arrays in the order of the signature: float64 or float32, and text."""
        one = numeric if numeric is not None else categorical
        assert one is not None  # noqa: S101 - a model takes something
        return cls(len(one), None, categorical, b"", numeric)


def warning(kind: str, column: str, rows: int, message: str) -> dict[str, Any]:
    """Return a warning as callers get it.

    Args:
        kind: One of `WARNINGS`.
        column: Which column it is about, or `WHOLE`.
        rows: In how many rows it is so.
        message: One sentence, or its part.
    """
    return {"kind": kind, "column": column, "rows": rows, "message": message}


def joined(group: Sequence[Parsed]) -> bytes:
    """Return the numbers of several requests as the bytes of float64, one row after the other."""
    try:
        return b"".join([parsed.packed for parsed in group])  # type: ignore[misc]
    except TypeError:
        return b"".join([_wide(parsed.numbers) if parsed.packed is None else parsed.packed for parsed in group])


def _wide(numeric: Any) -> bytes:
    """Return numbers as the bytes of float64."""
    return numeric.astype("float64", copy=False).tobytes()  # type: ignore[no-any-return]
