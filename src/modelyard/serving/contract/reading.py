"""Read a description from a file, which may come from anywhere: what is made of it is code, so nothing is believed."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from modelyard._kit.errors import UserError
from modelyard.inference.decode import Label

__all__ = ["read_description"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
_KINDS = {"string", "number", "integer", "boolean", "null", "array", "object"}
# Schemas that everything else is made of.
_NEEDED = ("Row", "Answer", "Prediction", "Value", "Joined", "ModelMetadata", "InferInput", "InferAnswer")


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
        info, schemas = found["info"], found["components"]["schemas"]
        whole = all(re.match(_NAME, info[key]) for key in ("title", "version")) and isinstance(found["paths"], dict)
        whole = whole and all(isinstance(schemas[one], dict) for one in _NEEDED) and _plain(schemas)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UserError(
            "contract-unreadable",
            f"`{name}` describes no endpoint of Modelyard",
            where=name,
            hint="`modelyard contract openapi --out FILE` writes one",
        )
    return found


def _plain(value: Any, key: str = "") -> bool:
    """Whether names, types and values are of the kinds that we write."""
    if isinstance(value, dict):
        if key != "properties" and "type" in value:
            kinds = value["type"]
            if not {kinds} <= _KINDS if isinstance(kinds, str) else not set(kinds) <= _KINDS:
                return False
        if "$ref" in value and not re.match(r"^#/components/[a-z]+/[A-Za-z0-9]+\Z", str(value["$ref"])):
            return False
        if key != "properties" and not all(isinstance(one, Label | None) for one in value.get("enum", ())):
            return False
        return all(_plain(inner, name if key != "properties" else "") for name, inner in value.items())
    return all(_plain(inner) for inner in value) if isinstance(value, list) else True
