"""The types of a Python client: typed dictionaries by name and key, whatever the keys are."""

from __future__ import annotations

from typing import Any

from modelyard.serving.contract.clients.names import Named, named, note_of

__all__ = ["types"]

_KINDS = {
    "string": "str",
    "number": "float",
    "integer": "int",
    "boolean": "bool",
    "null": "None",
    "array": "list[Any]",
    "object": "dict[str, Any]",
}


def types(document: dict[str, Any]) -> str:
    """Return the definitions of the types, in the order in which Python needs them."""
    return "\n\n".join(_definition(one) for one in named(document))


def _definition(one: Named) -> str:
    schema = one.schema
    if "properties" not in schema:
        return f"{one.name} = {_type(schema)}"
    required = set(schema.get("required", ()))
    lines = []
    for key, inner in schema["properties"].items():
        kind = _type(inner) if key in required else f"NotRequired[{_type(inner)}]"
        note = note_of(inner)
        lines.append(f"        {_text(key)}: {kind},{f'  # {note}' if note else ''}")
    return "\n".join([f"{one.name} = TypedDict(", f'    "{one.name}",', "    {", *lines, "    },", ")"])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "enum" in schema:
        return _literal(schema["enum"])
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if kinds == ["array"] and isinstance(schema.get("items"), dict):
        return f"list[{_type(schema['items'])}]"
    return " | ".join(_KINDS[kind] for kind in kinds) or "Any"


def _literal(values: list[Any]) -> str:
    """Return the type of some values; numbers with a fraction have no type of their own."""
    plain = [value for value in values if not isinstance(value, float) and value is not None]
    parts = [f"Literal[{', '.join(_text(v) if isinstance(v, str) else repr(v) for v in plain)}]"] if plain else []
    parts += ["float"] if any(isinstance(value, float) for value in values) else []
    return " | ".join([*parts, *(["None"] if None in values else [])])


def _text(text: str) -> str:
    """Return a text as Python writes it, in plain ASCII."""
    return ascii(text)
