"""Tensors to arrays: names, shapes and datatypes held against the signature, whatever the values came as.

A model's tensors are those of its signature, `numeric` and `categorical`; a caller may instead send one tensor a
column, under the column's name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import GenericAlias
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from modelyard._kit.text import plural
from modelyard.records import Feature
from modelyard.serving.columns import Columns
from modelyard.serving.errors import HttpError, bad, named
from modelyard.serving.parsed import Parsed
from modelyard.serving.protocols.binary import FIXED, numbers_in, texts_in
from modelyard.serving.values import UNREADABLE

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["DATATYPES", "Tensor", "parse_tensors"]

DATATYPES = (*FIXED, "BYTES")
# The lowest number of each datatype of whole ones, and the first above the highest: a double holds either.
_RANGES = {
    **{f"INT{bits}": (-(1 << bits - 1), 1 << bits - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 1 << bits) for bits in (8, 16, 32, 64)},
}
# The parser compares with nothing above it.
_HIGHEST = (1 << 63) - 1


def _whole(low: int, high: int) -> Any:
    """Return the type of whole numbers from one to another, or a missing value."""
    bounds = msgspec.Meta(ge=low) if high > _HIGHEST else msgspec.Meta(ge=low, le=high)
    return Annotated[int, bounds] | None


# What JSON holds of each datatype; null stands for a missing value.
_ITEMS: dict[str, Any] = {
    **dict.fromkeys(FIXED, float | None),
    **{name: _whole(low, above - 1) for name, (low, above) in _RANGES.items()},
    "BOOL": bool | None,
    "BYTES": str | None,
}
# Where in a list it is that is something else.
_PLACE = re.compile(r" - at `\$\[(\d+)\]")
_FLAT = {name: msgspec.json.Decoder(GenericAlias(list, item)) for name, item in _ITEMS.items()}
_NESTED = {name: msgspec.json.Decoder(GenericAlias(list, GenericAlias(list, item))) for name, item in _ITEMS.items()}


@dataclass(slots=True)
class Tensor:
    """One tensor as it was sent.

    Attributes:
        name: Its name.
        shape: Its shape; nothing of it is believed yet.
        datatype: Name of its datatype in the protocol.
        data: Its values as JSON; empty if there are none.
        blob: Its values as bytes; none if it has them as JSON.
        read: Its values as JSON once more, if they are read already: float64, and a missing one is NaN.
    """

    name: str
    shape: list[int]
    datatype: str
    data: bytes | memoryview = b""
    blob: memoryview | None = None
    read: bytes | None = None


def parse_tensors(columns: Columns, tensors: list[Tensor]) -> Parsed:
    """Return the rows that tensors hold.

    Raises:
        HttpError: What does not fit the signature, and where.
    """
    given: dict[str, Tensor] = {}
    kinds = {"numeric": columns.numbers, "categorical": columns.categories}
    known = (*(kind for kind, features in kinds.items() if features), *columns.names)
    for tensor in tensors:
        if tensor.name not in known:
            raise named("tensor-unknown", f"the model takes no tensor `{tensor.name[:60]}`", tensor.name, known)
        if tensor.name in given:
            raise bad("tensor-shape", f"tensor `{tensor.name[:60]}` is given twice")
        given[tensor.name] = tensor
    numeric, rows = _group(columns, given, "numeric", columns.numbers, None)
    categorical, rows = _group(columns, given, "categorical", columns.categories, rows)
    if given:
        name = next(iter(given))
        raise bad("tensor-shape", f"`{name}` is given twice: by itself and with all columns of its kind")
    if not rows:
        raise bad("rows-empty", "there is no row to answer")
    return Parsed.of(numeric, categorical)


def _group(
    columns: Columns, given: dict[str, Tensor], whole: str, features: tuple[Feature, ...], rows: int | None
) -> tuple[Array | None, int | None]:
    """Take the columns of one kind out of what was given, as one tensor or as one a column."""
    import numpy as np

    if not features:
        return None, rows
    one = given.get(whole)
    if one is not None and (whole not in columns.features or len(one.shape) == 2):
        del given[whole]
        count = _rows(columns, one, len(features), rows)
        # Nothing is made room for before as many values are there as the shape says.
        flat = _numbers(one) if whole == "numeric" else np.array(_texts(one), object)
        return flat.reshape(count, len(features)), count
    found: list[Any] = []
    for feature in features:
        tensor = given.pop(feature.name, None)
        if tensor is None:
            what = f"tensor `{whole}`" if not found else f"tensor `{feature.name}`"
            raise bad("tensor-missing", f"{what} is not given; send `{whole}` with all its columns, or each by name")
        rows = _rows(columns, tensor, 1, rows)
        found.append(_numbers(tensor) if whole == "numeric" else _texts(tensor))
    kind = np.result_type(*found) if whole == "numeric" else object
    made: Array = np.empty((rows or 0, len(features)), kind)
    for at, column in enumerate(found):
        made[:, at] = column
    return made, rows


def _rows(columns: Columns, tensor: Tensor, width: int, rows: int | None) -> int:
    """Check a shape and return its number of rows."""
    shape = tensor.shape
    fits = (len(shape) == 2 and shape[1] == width) or (len(shape) == 1 and width == 1)
    if not fits or shape[0] < 0:
        want = f"[rows, {width}]" if width > 1 else "[rows] or [rows, 1]"
        raise bad("tensor-shape", f"`{tensor.name[:60]}` has the shape {_shown(shape)}; the model takes {want}")
    columns.check_count(shape[0])
    if rows is not None and shape[0] != rows:
        raise bad("rows-uneven", f"`{tensor.name[:60]}` has {plural(shape[0], 'row')} and the tensor before it {rows}")
    return shape[0]


def _shown(shape: list[int]) -> str:
    """A shape as text, whatever its numbers are."""
    sizes = [str(n) if abs(n) < 10**12 else "very many" for n in shape[:8]]
    return f"[{', '.join(sizes)}{', ...' if len(shape) > 8 else ''}]"


def _numbers(tensor: Tensor) -> Array:
    import numpy as np

    if tensor.datatype not in FIXED:
        raise bad("tensor-type", f"`{tensor.name[:60]}` holds numbers and has the datatype `{tensor.datatype[:20]}`")
    if tensor.blob is not None:
        return numbers_in(tensor.name, tensor.datatype, tensor.shape, tensor.blob)
    if tensor.read is not None and _taken(tensor):
        return np.frombuffer(tensor.read, np.float64)
    try:
        return np.array(_items(tensor), np.float64)
    except OverflowError:
        raise bad("value-not-finite", f"`{tensor.name[:60]}` holds too large a number") from None


def _taken(tensor: Tensor) -> bool:
    """Say whether numbers that are read already are those of the datatype, and as many as the shape says."""
    if tensor.datatype == "BOOL" or len(tensor.read or b"") != 8 * math.prod(tensor.shape):
        return False
    if tensor.datatype.startswith("FP"):
        return True
    data = bytes(tensor.data)
    # A whole number is written without these.
    return not (b"." in data or b"e" in data or b"E" in data) and _within(tensor, data)


def _within(tensor: Tensor, data: bytes) -> bool:
    """Say whether numbers that are read already lie in the range of their datatype, or are missing."""
    low, above = _RANGES[tensor.datatype]
    # In brackets, and a digit less than the highest: so short are most that come alone.
    if len(data) <= len(str(above)) + 1 and (low or b"-" not in data):
        return True
    import numpy as np

    given = np.frombuffer(tensor.read or b"", np.float64)
    return not bool(((given < low) | (given >= above)).any())


def _texts(tensor: Tensor) -> list[str]:
    if tensor.datatype != "BYTES":
        raise bad("tensor-type", f"`{tensor.name[:60]}` holds texts and has the datatype `{tensor.datatype[:20]}`")
    if tensor.blob is not None:
        return texts_in(tensor.name, tensor.shape, tensor.blob)
    return [item or "" for item in _items(tensor)]


def _items(tensor: Tensor) -> list[Any]:
    """Decode a tensor's data, flat or row by row."""
    raw = bytes(tensor.data)
    if not raw:
        raise bad("tensor-shape", f"`{tensor.name[:60]}` has no data")
    size = math.prod(tensor.shape)
    # Commas are counted faster than values are made; a text may hold some of its own.
    least = raw.count(b",") + 1
    if tensor.datatype != "BYTES" and least > max(size, 1):
        raise _uneven(tensor, least)
    nested = raw[1:].lstrip()[:1] == b"["
    try:
        if nested:
            items = [item for row in _NESTED[tensor.datatype].decode(raw) for item in row]
        else:
            items = _FLAT[tensor.datatype].decode(raw)
    except UNREADABLE as error:
        if "out of range" in str(error):
            raise bad("value-not-finite", f"`{tensor.name[:60]}` holds too large a number") from None
        where = _row_of(tensor, str(error), nested=nested)
        raise bad("tensor-type", f"{where}`{tensor.name[:60]}` holds something else than {tensor.datatype}") from None
    if len(items) != size:
        raise _uneven(tensor, len(items))
    return items


def _row_of(tensor: Tensor, said: str, *, nested: bool) -> str:
    """Return the row in which the parser met something else, as a sentence begins with it; empty if it does not say."""
    place = _PLACE.search(said)
    if place is None:
        return ""
    width = 1 if nested else max(math.prod(tensor.shape[1:]), 1)
    return f"row {int(place[1]) // width}: "


def _uneven(tensor: Tensor, count: int) -> HttpError:
    return bad(
        "tensor-shape", f"`{tensor.name[:60]}` has the shape {_shown(tensor.shape)} and {plural(count, 'value')}"
    )
