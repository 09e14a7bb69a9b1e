"""The files that pages carry: their addresses, and the list of what others wrote."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from modelyard._kit.digest import digest_file, short

__all__ = ["FOLDER", "Vendored", "asset", "licence", "vendored"]

FOLDER = Path(__file__).parent / "static"


@dataclass(frozen=True, slots=True)
class Vendored:
    """A file that others wrote, kept as it was published.

    Attributes:
        name: What it is called here.
        package: Name of the package it comes from.
        version: Its exact version.
        licence: SPDX name of its licence.
        file: Its file in `static/vendor`, with the head of its digest in the name.
        licence_file: The text of the licence, beside it.
        sha256: Digest of the file.
    """

    name: str
    package: str
    version: str
    licence: str
    file: str
    licence_file: str
    sha256: str


@cache
def asset(name: str) -> str:
    """Return the address of a file in `static`, with its digest, so that browsers may keep it for ever."""
    return f"/static/{name}?v={short(digest_file(FOLDER / name))}"


@cache
def vendored() -> tuple[Vendored, ...]:
    """Return what others wrote, as `vendor.json` lists it."""
    data = (FOLDER / "vendor" / "vendor.json").read_bytes()
    return msgspec.json.decode(data, type=tuple[Vendored, ...])


def licence(one: Vendored) -> str:
    """Return the text of its licence."""
    return (FOLDER / "vendor" / one.licence_file).read_text(encoding="utf-8")
