"""What the sections of `modelyard.yaml` are made of: a base, and types for what people write (`2d`, `20%`).

Each house declares its section with these in its `section.py`; `spec` reads them and knows nothing of the houses.
The keys of `extra_json_schema` that only `spec` understands are `form` (how the text is read) and `say` (what a
pattern wants, in words); they never reach the printed JSON Schema.
"""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

__all__ = [
    "Column",
    "Duration",
    "DurationOrNone",
    "FunctionPath",
    "Label",
    "Name",
    "OpenShare",
    "Section",
    "Share",
    "Size",
    "Texts",
    "parse_duration",
    "parse_share",
    "parse_size",
    "write_duration",
]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that stands in the file: frozen, and an unknown field is a mistake."""


# Seconds, written with a unit: `5ms`, `30s`, `2d`.
Duration = Annotated[float, Meta(gt=0, extra_json_schema={"form": "duration"})]
# The same, or `0`.
DurationOrNone = Annotated[float, Meta(ge=0, extra_json_schema={"form": "duration"})]
# A part of the whole, written `20%` or `0.2`: from nothing to all, and more than nothing and less than all.
Share = Annotated[float, Meta(ge=0, le=1, extra_json_schema={"form": "share"})]
OpenShare = Annotated[float, Meta(gt=0, lt=1, extra_json_schema={"form": "share"})]
# Bytes, written with a unit: `500MB`, `2GB`, `1GiB`.
Size = Annotated[int, Meta(gt=0, extra_json_schema={"form": "size"})]
# A value of a column as text: `1`, `true` and `yes` are taken as they are written.
Label = Annotated[str, Meta(extra_json_schema={"form": "label"})]
# One text or a list of them; always a tuple here.
Texts = Annotated[tuple[Label, ...], Meta(extra_json_schema={"form": "texts"})]
# Name of a column.
Column = Annotated[str, Meta(min_length=1)]
# A name that is safe in a path, a URL and a step's name. `\Z` and not `$`, which lets a line break stand behind it; the
# JSON Schema knows only `$`, and means the end by it.
Name = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}\Z",
        extra_json_schema={
            "say": "a name: a letter, then letters, digits, `_` and `-`, at most 63",
        },
    ),
]
FunctionPath = Annotated[
    str,
    Meta(
        pattern=r"^[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*\Z",
        extra_json_schema={"say": "a file and a function: FILE.py:FUNCTION"},
    ),
]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d|w)")
_SHARE = re.compile(r"(-?\d+(?:\.\d+)?) ?%")
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_BYTES)})")


def parse_duration(text: str) -> float:
    """Return the seconds of `5ms`, `30s`, `30m`, `1h`, `2d` or `1w`.

    Raises:
        ValueError: It is not a number with one of these units.

    Examples:
        >>> parse_duration("2d"), parse_duration("5ms")
        (172800.0, 0.005)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    # Milliseconds are divided, not multiplied, so that `5ms` is exactly 0.005.
    if match[2] == "ms":
        return float(match[1]) / 1000
    return float(match[1]) * _SECONDS[match[2]]


def write_duration(seconds: float) -> str:
    """Return seconds as they are written, in the largest unit that needs no fraction.

    Examples:
        >>> write_duration(60.0), write_duration(5400.0), write_duration(0.25)
        ('1m', '90m', '250ms')
    """
    if seconds != int(seconds):
        return f"{seconds * 1000:g}ms"
    unit = next(name for name, size in reversed(_SECONDS.items()) if seconds % size == 0)
    return f"{seconds / _SECONDS[unit]:g}{unit}"


def parse_share(text: str) -> float:
    """Return the share of `20%`: 0.2.

    Raises:
        ValueError: It is not a number with a percent sign.

    Examples:
        >>> parse_share("20%"), parse_share("0.5 %")
        (0.2, 0.005)
    """
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return float(match[1]) / 100


def parse_size(text: str) -> int:
    """Return the bytes of `500MB`, `2GB` (powers of ten) or `1GiB` (powers of two).

    Raises:
        ValueError: It is not a number with one of these units.

    Examples:
        >>> parse_size("2GB"), parse_size("0.5 GiB")
        (2000000000, 536870912)
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return round(float(match[1]) * _BYTES[match[2]])
