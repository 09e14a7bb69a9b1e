"""The JSON Schema of the file, for editors: completion, texts on hover, red lines under mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard.spec.rules.steps import OF_A_MODEL

__all__ = ["json_schema"]

_DURATION = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d|w)$"}
_SIZE = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(B|[kKMGT]B|[KMGT]iB)$"}
_PERCENT = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$"}
_LABEL = {"type": ["string", "number", "boolean"]}
_NUMBER_KEYS = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of `modelyard.yaml`."""
    from modelyard.spec.declaration import Declaration

    made = msgspec.json.schema(Declaration)
    kinds = made["$defs"]["CheckEntry"]["properties"]
    empty = {f"#/$defs/{name}" for name, body in made["$defs"].items() if not body.get("required")}
    sections = {f"#/$defs/{name}": body.get("properties", {}) for name, body in made["$defs"].items()}
    schema: dict[str, Any] = _Formed(empty, tuple(kinds), sections).of(made)
    # What `spec.rules.steps.whole` says of the file as a whole.
    schema["$defs"]["Declaration"] |= {
        "anyOf": [{"required": ["model"]}, {"required": ["steps"]}],
        "dependentRequired": {"model": ["data"], **{name: ["model"] for name in OF_A_MODEL}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "modelyard.yaml",
        "description": "One file describes a model and the steps around it.",
        **schema,
    }


@dataclass(frozen=True, slots=True)
class _Formed:
    """Replaces what a type is in Python by what people may write, all the way down.

    Attributes:
        empty: References to sections without a required field; nothing at all may stand for these.
        kinds: Names of the kinds of check.
        sections: Reference to a section -> its fields.
    """

    empty: set[str]
    kinds: tuple[str, ...]
    sections: dict[str, Any]

    def of(self, node: Any) -> Any:
        """Return a piece of the schema as editors take it."""
        if isinstance(node, list):
            return [self.of(item) for item in node]
        if not isinstance(node, dict):
            # Patterns are regular expressions of JavaScript there, in which `$` is the very end.
            return node.replace(r"\Z", "$") if isinstance(node, str) else node
        if node.get("form") == "short":
            return self._short(node)
        node = {key: value if key in ("examples", "default", "enum") else self.of(value) for key, value in node.items()}
        form = node.pop("form", "")
        node.pop("say", None)
        node.pop("noun", None)
        if node.get("default", "") in (None, [], {}):
            # An editor would show it, and it says nothing.
            del node["default"]
        node = self._written(node, form)
        if node.get("$ref") in self.empty and form != "one_key":
            node["anyOf"] = [{"$ref": node.pop("$ref")}, {"type": "null"}]
        return node

    def _written(self, node: dict[str, Any], form: str) -> dict[str, Any]:
        match form:
            case "duration" | "size":
                none = node.get("minimum") == 0
                for key in _NUMBER_KEYS:
                    node.pop(key, None)
                node |= _DURATION if form == "duration" else _SIZE
                if none:
                    node["anyOf"] = [{"type": node.pop("type"), "pattern": node.pop("pattern")}, {"const": 0}]
                # The number of seconds or bytes is not what is written.
                node.pop("default", None)
            case "share":
                number = {key: node.pop(key) for key in _NUMBER_KEYS if key in node}
                node["anyOf"] = [number, _PERCENT]
                if "default" in node:
                    node["default"] = f"{node['default'] * 100:g}%"
            case "texts":
                many = {key: node.pop(key) for key in ("type", "items", "minItems", "maxItems") if key in node}
                node["anyOf"] = [many["items"] if "pattern" in many["items"] else _LABEL, many]
            case "sections":
                several = {key: node.pop(key) for key in ("type", "items", "minItems") if key in node}
                node["anyOf"] = [several["items"], several]
            case "label":
                node |= _LABEL
            case "one_key":
                # One kind with its settings, or its bare name.
                names = {"enum": list(self.kinds)}
                return {"anyOf": [{**node, "minProperties": 1, "maxProperties": 1}, names]}
        return node

    def _short(self, node: dict[str, Any]) -> dict[str, Any]:
        """One value for the field that matters most, or all fields, or nothing."""
        ref = node["$ref"] if "$ref" in node else node["anyOf"][0]["$ref"]
        notes = {key: node[key] for key in ("description", "examples")}
        one = self.of(self.sections[ref][node["short"]])
        return {**notes, "anyOf": [{"$ref": ref}, one, {"type": "null"}]}
