"""Read a description from a file, which may come from anywhere: what is made of it is code, so nothing is believed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from modelyard._kit.errors import UserError

__all__ = ["read_description"]

_Kind = Literal["string", "number", "integer", "boolean", "null", "array", "object"]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
_PREFIX = "#/components/schemas/"
# An object within another one becomes a type of a client, whose name is made of its key.
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Schemas that everything else is made of.
_NEEDED = ("Row", "Answer", "Prediction", "Value", "Joined", "ModelMetadata", "InferInput", "InferAnswer")

# Of each part what is read of it, and what code is made of.


class _Seen(msgspec.Struct):
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    missing: bool = False


class _Schema(msgspec.Struct, rename={"ref": "$ref", "seen": "x-seen"}):
    ref: Annotated[str, msgspec.Meta(pattern=rf"^({_PREFIX}[A-Za-z0-9]+)?\Z")] = ""
    type: _Kind | tuple[_Kind, ...] = ()
    enum: tuple[str | int | float | bool | None, ...] = ()
    properties: dict[str, _Schema] | None = None
    required: tuple[str, ...] = ()
    items: _Schema | bool | None = None
    minimum: float | None = None
    maximum: float | None = None
    minLength: int | None = None  # noqa: N815 - as OpenAPI spells it
    maxLength: int | None = None  # noqa: N815
    minItems: int | None = None  # noqa: N815
    maxItems: int | None = None  # noqa: N815
    seen: _Seen = msgspec.field(default_factory=_Seen)


class _Parameter(msgspec.Struct, rename={"ref": "$ref"}):
    name: str = ""
    required: bool = False
    ref: str = ""


class _Body(msgspec.Struct):
    content: dict[str, Any] = {}


class _Operation(msgspec.Struct, rename={"body": "requestBody"}):
    body: _Body = msgspec.field(default_factory=_Body)
    responses: dict[str, _Body] = {}
    parameters: tuple[_Parameter, ...] = ()


class _Info(msgspec.Struct):
    title: _Name
    version: _Name


class _Components(msgspec.Struct):
    schemas: dict[str, _Schema]
    parameters: dict[str, _Parameter] = {}


class _Description(msgspec.Struct):
    info: _Info
    paths: dict[str, dict[str, _Operation | tuple[_Parameter, ...]]]
    components: _Components


def read_description(text: bytes, name: str) -> dict[str, Any]:
    """Return the description that a file holds.

    Args:
        text: Its bytes.
        name: Its name, for errors.

    Raises:
        UserError: It describes no endpoint of ours (`contract-unreadable`).
    """
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
        whole = _is_ours(msgspec.convert(found, _Description))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(
            "contract-unreadable",
            f"`{name}` describes no endpoint of Modelyard",
            where=name,
            hint="`modelyard contract openapi -o FILE` writes one",
        )
    return found


def _is_ours(found: _Description) -> bool:
    schemas, known = found.components.schemas, found.components.parameters
    if not schemas.keys() >= set(_NEEDED) or not all(_is_plain(one, schemas) for one in schemas.values()):
        return False
    row, answer = schemas["Row"].properties, schemas["Prediction"].properties
    operations = [one for item in found.paths.values() for one in item.values() if isinstance(one, _Operation)]
    return bool(
        row is not None
        and all(column.type for column in row.values())
        and answer is not None
        and (
            "value" in answer
            or ("probabilities" in answer and answer["probabilities"].properties and schemas["Value"].enum)
        )
        and all(
            one.ref.rpartition("/")[2] in known if one.ref else one.name for op in operations for one in op.parameters
        )
    )


def _is_plain(schema: _Schema, schemas: dict[str, _Schema]) -> bool:
    """Whether all that it refers to is there, and objects within it have names that can be those of types."""
    if (schema.ref and schema.ref.removeprefix(_PREFIX) not in schemas) or schema.items is True:
        return False
    inner = [schema.items] if isinstance(schema.items, _Schema) else []
    for key, one in (schema.properties or {}).items():
        if _has_type(one) and not _KEY.fullmatch(key):
            return False
        inner.append(one)
    return all(_is_plain(one, schemas) for one in inner)


def _has_type(schema: _Schema) -> bool:
    """Whether a client has a type for it or for what is in it."""
    return schema.properties is not None or (isinstance(schema.items, _Schema) and _has_type(schema.items))
