"""The types of a TypeScript client: interfaces whose keys are written as texts, whatever they are."""

from __future__ import annotations

import json
from typing import Any

from modelyard.serving.contract.clients.names import Named, named, note_of

__all__ = ["literal", "types"]

_KINDS = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "null": "null",
    "array": "unknown[]",
    "object": "Record<string, unknown>",
}


def types(document: dict[str, Any]) -> str:
    """Return the definitions of the types."""
    return "\n\n".join(_definition(one) for one in named(document))


def literal(value: Any) -> str:
    """Return a value of JSON as TypeScript writes it, in plain ASCII."""
    return json.dumps(value)


def _definition(one: Named) -> str:
    schema = one.schema
    if "properties" not in schema:
        return f"export type {one.name} = {_type(schema)};"
    required = set(schema.get("required", ()))
    lines = []
    for key, inner in schema["properties"].items():
        if note := note_of(inner):
            # What closes a comment would go on as code.
            lines.append(f"  /** {note.replace('*/', '* /')} */")
        lines.append(f"  {literal(key)}{'' if key in required else '?'}: {_type(inner)};")
    return "\n".join([f"export interface {one.name} {{", *lines, "}"])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "enum" in schema:
        return " | ".join(literal(value) for value in schema["enum"])
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if kinds == ["array"] and isinstance(schema.get("items"), dict):
        return f"Array<{_type(schema['items'])}>"
    return " | ".join(dict.fromkeys(_KINDS[kind] for kind in kinds)) or "unknown"
