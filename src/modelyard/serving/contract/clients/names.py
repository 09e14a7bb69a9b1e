"""Names and schemas on their way into a client's types."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["TYPES", "Named", "module_name", "named", "note_of"]

# The schemas that a client has a type for.
TYPES = ("Row", "Answer", "Joined", "ModelMetadata", "InferInput", "InferAnswer")
# What would hide a name that the language knows.
_RENAMED = {"Warning": "RowWarning"}
_PREFIX = "#/components/schemas/"
_NOTED = 8


class Named(NamedTuple):
    """A type of a client.

    Attributes:
        name: Its name.
        schema: Its schema; `$ref` in it is the name of a type.
    """

    name: str
    schema: dict[str, Any]


def named(document: dict[str, Any]) -> Iterator[Named]:
    """Yield the types of a client, each after those that it is made of; an inner object gets a name of its own."""
    schemas = document["components"]["schemas"]
    done: set[str] = set()
    for name in TYPES:
        yield from _named(name, schemas[name], schemas, done)


def _named(name: str, schema: dict[str, Any], schemas: dict[str, Any], done: set[str]) -> Iterator[Named]:
    name = _RENAMED.get(name, name)
    if name in done:
        return
    done.add(name)
    schema = dict(schema)
    if "properties" in schema:
        schema["properties"] = dict(schema["properties"])
        for key, inner in schema["properties"].items():
            found = yield from _inner(f"{name}{key.title().replace('_', '')}", inner, schemas, done)
            schema["properties"][key] = found
    elif "items" in schema:
        schema["items"] = yield from _inner(f"{name}Item", schema["items"], schemas, done)
    yield Named(name, schema)


def _inner(name: str, schema: dict[str, Any], schemas: dict[str, Any], done: set[str]) -> Any:
    if "$ref" in schema:
        target = schema["$ref"].removeprefix(_PREFIX)
        yield from _named(target, schemas[target], schemas, done)
        return {"$ref": _RENAMED.get(target, target)}
    if "properties" in schema:
        yield from _named(name, schema, schemas, done)
        return {"$ref": name}
    if isinstance(schema.get("items"), dict):
        return {**schema, "items": (yield from _inner(f"{name}Item", schema["items"], schemas, done))}
    return schema


def note_of(schema: dict[str, Any]) -> str:
    """Return what was seen of a column in training, in one line of plain ASCII; empty where nothing is known."""
    seen = schema.get("x-seen", {})
    if "categories" in seen:
        shown = ", ".join(json.dumps(one) for one in seen["categories"][:_NOTED])
        return f"seen: {shown}{', ...' if len(seen['categories']) > _NOTED else ''}"
    low, high = seen.get("low"), seen.get("high")
    if low is not None and high is not None:
        return f"seen: {low:g} to {high:g}"
    return ""


def module_name(endpoint: str) -> str:
    """Return the name of an endpoint as one of a Python module.

    >>> module_name("income.v2"), module_name("2-fast"), module_name("class")
    ('income_v2', 'endpoint_2_fast', 'class_')
    """
    name = re.sub(r"[^A-Za-z0-9]+", "_", endpoint).strip("_").lower() or "endpoint"
    if name[0].isdigit():
        name = f"endpoint_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name
