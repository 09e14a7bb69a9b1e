"""Read a description from a file, which may come from anywhere: what is made of it is code, so nothing is believed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from modelyard._kit.errors import UserError

__all__ = ["read_description"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
_Kind = Literal["string", "number", "integer", "boolean", "null", "array", "object"]
_PREFIX = "#/components/schemas/"
# An object within another one becomes a type of a client, whose name is made of its key.
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Schemas that everything else is made of.
_NEEDED = ("Row", "Answer", "Prediction", "Value", "Joined", "ModelMetadata", "InferInput", "InferAnswer")


class _Seen(msgspec.Struct):
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()


class _Schema(msgspec.Struct, rename={"ref": "$ref", "seen": "x-seen"}):
    """What of a schema is made into code."""

    ref: Annotated[str, msgspec.Meta(pattern=rf"^({_PREFIX}[A-Za-z0-9]+)?\Z")] = ""
    type: _Kind | tuple[_Kind, ...] = ()
    enum: tuple[str | int | float | bool | None, ...] = ()
    properties: dict[str, _Schema] | None = None
    items: _Schema | bool | None = None
    seen: _Seen = msgspec.field(default_factory=_Seen)


def read_description(text: bytes, name: str) -> dict[str, Any]:
    """Return the description that a file holds.

    Args:
        text: Its bytes.
        name: Its name, for errors.

    Raises:
        UserError: It describes no endpoint of ours (`contract-unreadable`).
    """
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
        info, schemas = found["info"], msgspec.convert(found["components"]["schemas"], dict[str, _Schema])
        whole = all(re.match(_NAME, info[key]) for key in ("title", "version")) and isinstance(found["paths"], dict)
        whole = whole and schemas.keys() >= set(_NEEDED) and all(_plain(one, schemas) for one in schemas.values())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(
            "contract-unreadable",
            f"`{name}` describes no endpoint of Modelyard",
            where=name,
            hint="`modelyard contract openapi --out FILE` writes one",
        )
    return found


def _plain(schema: _Schema, schemas: dict[str, _Schema]) -> bool:
    """Whether all that it refers to is there, and objects within it have names that can be those of types."""
    if schema.ref and schema.ref.removeprefix(_PREFIX) not in schemas:
        return False
    inner = [schema.items] if isinstance(schema.items, _Schema) else []
    for key, one in (schema.properties or {}).items():
        if (one.properties is not None or one.items is not None) and not _KEY.fullmatch(key):
            return False
        inner.append(one)
    return all(_plain(one, schemas) for one in inner)
