"""The JSON Schema of the file, for editors: completion, texts on hover, red lines under mistakes."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["json_schema"]

_DURATION = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d|w)$"}
_PERCENT = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$"}
_LABEL = {"type": ["string", "number", "boolean"]}
_NUMBER_KEYS = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `modelyard.yaml`."""
    from modelyard.spec.declaration import Declaration

    made = msgspec.json.schema(Declaration)
    kinds = made["$defs"]["CheckEntry"]["properties"]
    empty = {f"#/$defs/{name}" for name, body in made["$defs"].items() if not body.get("required")}
    schema: dict[str, Any] = _formed(made, empty, tuple(kinds))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "modelyard.yaml",
        "description": "One file describes a model: data, features, model, checks, card, deployment, monitoring.",
        **schema,
    }


def _formed(node: Any, empty: set[str], kinds: tuple[str, ...]) -> Any:
    """Replace what a type is in Python by what people may write, all the way down.

    Args:
        node: A piece of the schema.
        empty: References to sections without a required field; nothing at all may stand for these.
        kinds: Names of the kinds of check.
    """
    if isinstance(node, list):
        return [_formed(item, empty, kinds) for item in node]
    if not isinstance(node, dict):
        # Patterns are regular expressions of JavaScript there, in which `$` is the very end.
        return node.replace(r"\Z", "$") if isinstance(node, str) else node
    node = {
        key: value if key in ("examples", "default", "enum") else _formed(value, empty, kinds)
        for key, value in node.items()
    }
    form = node.pop("form", "")
    node.pop("say", None)
    node.pop("noun", None)
    if node.get("default", "") in (None, [], {}):
        # An editor would show it, and it says nothing.
        del node["default"]
    match form:
        case "duration":
            for key in _NUMBER_KEYS:
                node.pop(key, None)
            node |= _DURATION
        case "share":
            number = {key: node.pop(key) for key in _NUMBER_KEYS if key in node}
            node["anyOf"] = [number, _PERCENT]
            if "default" in node:
                node["default"] = f"{node['default'] * 100:g}%"
        case "texts":
            many = {key: node.pop(key) for key in ("type", "items", "minItems", "maxItems") if key in node}
            node["anyOf"] = [_LABEL, many]
        case "label":
            node |= _LABEL
        case "one_key":
            # One kind with its settings, or its bare name.
            names = {"enum": list(kinds)}
            node = {"anyOf": [{**node, "minProperties": 1, "maxProperties": 1}, names]}
    if node.get("$ref") in empty and form != "one_key":
        node["anyOf"] = [{"$ref": node.pop("$ref")}, {"type": "null"}]
    return node
