"""Write small values the way a person would write them in the file."""

from __future__ import annotations

import json
import math
import re
from typing import Any

__all__ = ["block", "inline"]

# Text that needs no quotes: no sign that means something to YAML, and not a word that is read as something else.
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./*+@%-]*( [A-Za-z0-9_./*+@%()-]+)*[.;]?|[0-9]+(\.[0-9]+)?(%|ms|s|m|h|d|w)")
_WORDS = re.compile(r"true|false|null|[-+]?\.(inf|nan)|[-+]?\.[0-9]+(e[-+]?[0-9]+)?", re.IGNORECASE)


def inline(value: Any) -> str:
    """Return a value in YAML on one line.

    Examples:
        >>> inline({"by": "time", "test": "20%", "drop": ["id", ">50K"]})
        '{by: time, test: 20%, drop: [id, ">50K"]}'
    """
    match value:
        case dict():
            return "{" + ", ".join(f"{inline(k)}: {inline(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(inline(v) for v in value) + "]"
        case str():
            return value if _PLAIN.fullmatch(value) and not _WORDS.fullmatch(value) else _quoted(value)
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case float():
            return f"{value:.0f}" if value.is_integer() else repr(value)
        case _:
            return json.dumps(value)


def _quoted(text: str) -> str:
    """In double quotes; what cannot be seen is written by its number, as YAML demands of most of it."""
    signs = (f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(signs) + '"'


def block(value: Any, *, deep: int = 0) -> str:
    """Return nested fields in YAML, one a line down to the last level, which stands on one line.

    Examples:
        >>> print(block({"model": {"split": {"by": "time"}}}))
        model:
          split:
            by: time
    """
    pad = "  " * deep
    if isinstance(value, dict) and len(value) == 1:
        ((name, inner),) = value.items()
        if isinstance(inner, dict) and inner:
            return f"{pad}{inline(name)}:\n{block(inner, deep=deep + 1)}"
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            items = "\n".join(f"{pad}  - {inline(i)[1:-1] if len(i) == 1 else inline(i)}" for i in inner)
            return f"{pad}{inline(name)}:\n{items}"
        return f"{pad}{inline(name)}: {inline(inner)}"
    if isinstance(value, dict):
        return "\n".join(f"{pad}{inline(k)}: {inline(v)}" for k, v in value.items())
    return f"{pad}{inline(value)}"
