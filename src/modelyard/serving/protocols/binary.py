"""Tensors as bytes: the binary extension of the open protocol.

A request may end in the bytes of its tensors, after JSON that is as long as `Inference-Header-Content-Length` says;
each tensor's share is its `binary_data_size`. Nothing is made room for before all sizes add up to what really came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from modelyard.serving.errors import bad

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FIXED", "numbers_in", "numbers_out", "shares", "split", "texts_in", "texts_out"]

# Datatype -> what its bytes are, always little-endian; a truth value is one byte.
FIXED = {
    "BOOL": "u1",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
# Datatypes whose every value is a float32, too.
_NARROW = frozenset(("BOOL", "INT8", "INT16", "UINT8", "UINT16", "FP16", "FP32"))
# Digits of a length that could be true.
_DIGITS = 12


def split(body: bytes, length: bytes) -> tuple[bytes, memoryview]:
    """Return the JSON of a request and the bytes after it.

    Args:
        body: All of it.
        length: What `Inference-Header-Content-Length` says; empty: it is all JSON.

    Raises:
        HttpError: The length is no number, or longer than the body (`tensor-binary`).
    """
    if not length:
        return body, memoryview(b"")
    if not length.isdigit() or len(length) > _DIGITS or int(length) > len(body):
        raise bad("tensor-binary", "`Inference-Header-Content-Length` is not the length of the JSON in this body")
    end = int(length)
    return body[:end], memoryview(body)[end:]


def shares(sizes: Iterable[tuple[str, Any]], rest: memoryview) -> dict[str, memoryview]:
    """Deal the bytes after the JSON out to the tensors.

    Args:
        sizes: Name and `binary_data_size` of each tensor that has one, in the order of the request.
        rest: The bytes.

    Raises:
        HttpError: A size is no number, or they do not add up (`tensor-binary`).
    """
    given: dict[str, memoryview] = {}
    at = 0
    for name, size in sizes:
        if type(size) is not int or size < 0:
            raise bad("tensor-binary", f"`binary_data_size` of `{name[:60]}` is not a number of bytes")
        if size > len(rest) - at:
            raise bad(
                "tensor-binary", f"`{name[:60]}` should have more bytes than the {len(rest) - at:,} that are left"
            )
        given[name] = rest[at : at + size]
        at += size
    if at != len(rest):
        raise bad("tensor-binary", f"{len(rest) - at:,} bytes after the JSON belong to no tensor")
    return given


def numbers_in(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Return the values of a tensor, flat: float32 where that holds them all, else float64.

    Raises:
        HttpError: There are more or fewer bytes than the shape takes (`tensor-binary`).
    """
    import numpy as np

    kind = np.dtype(FIXED[datatype])
    # A shape may say any number; Python's own integers hold it.
    if math.prod(shape) * kind.itemsize != len(data):
        raise bad("tensor-binary", f"`{name[:60]}` has {len(data):,} bytes, which is not its shape in {datatype}")
    flat: Array = np.frombuffer(data, kind)
    if not flat.flags.aligned:
        # The bytes begin anywhere in the body; the model wants them where the machine likes them.
        flat = np.frombuffer(bytes(data), kind)
    if datatype == "BOOL":
        flat = flat != 0
    return flat.astype(np.float32 if datatype in _NARROW else np.float64, copy=False)


def texts_in(name: str, shape: Sequence[int], data: memoryview) -> list[str]:
    """Return the texts of a BYTES tensor: each has its length before it, in four bytes.

    Raises:
        HttpError: The lengths do not add up (`tensor-binary`), or a text is not UTF-8 (`tensor-type`).
    """
    count = math.prod(shape)
    if count * 4 > len(data):
        raise bad("tensor-binary", f"`{name[:60]}` has {len(data):,} bytes, which is less than its shape takes")
    texts: list[str] = []
    at, end = 0, len(data)
    try:
        for _ in range(count):
            begin = at + 4
            at = begin + int.from_bytes(data[at:begin], "little")
            if begin > end or at > end:
                raise bad("tensor-binary", f"a text of `{name[:60]}` is longer than the bytes that are left")
            texts.append(str(data[begin:at], "utf-8"))
    except UnicodeDecodeError:
        raise bad("tensor-type", f"`{name[:60]}` holds a text that is not UTF-8") from None
    if at != end:
        raise bad("tensor-binary", f"`{name[:60]}` has {end - at:,} bytes more than its shape takes")
    return texts


def numbers_out(values: Array | Sequence[Sequence[float]]) -> bytes:
    """Return the bytes of an FP32 tensor."""
    import numpy as np

    return np.ascontiguousarray(values, "<f4").tobytes()


def texts_out(names: Iterable[str], picks: Iterable[int]) -> bytes:
    """Return the bytes of a BYTES tensor of few different texts.

    Args:
        names: The texts there are.
        picks: Position of one of them for each value.
    """
    raw = [name.encode() for name in names]
    whole = [len(one).to_bytes(4, "little") + one for one in raw]
    return b"".join(map(whole.__getitem__, picks))
