"""The words in which a mistake in a value is told."""

from __future__ import annotations

import math
import re
from typing import Any

from msgspec import inspect

from modelyard._kit.errors import near
from modelyard.spec.read import Listing, Mapping, Node, Scalar
from modelyard.spec.report import shown
from modelyard.spec.sample import inline
from modelyard.spec.shape import Shape, fields_of, shape_of

__all__ = ["bad_number", "bad_text", "did_you_mean", "example", "given", "homes"]


def given(node: Node) -> str:
    """Say what stands in the file."""
    if isinstance(node, Listing):
        return f"a list of {len(node.items)}"
    if isinstance(node, Mapping):
        return "fields with values"
    assert isinstance(node, Scalar)  # noqa: S101 - for the type checker
    match node.value:
        case None:
            return "nothing"
        case bool():
            return f'the truth value "{node.text}"'
        case int() | float():
            return f'the number "{node.text}"'
        case _:
            text = node.text if len(node.text) <= 60 else f"{node.text[:57]}..."
            return f'the text "{text}"'


def bad_text(value: str, shape: Shape) -> str:
    """Say what is wrong with a text; nothing if it may stand."""
    declared = shape.type
    assert isinstance(declared, inspect.StrType)  # noqa: S101 - for the type checker
    if declared.pattern and not re.search(declared.pattern, value):
        return f"is not {shape.notes.get('say', 'of the form ' + declared.pattern)}"
    if len(value) < (declared.min_length or 0):
        return "is empty"
    if declared.max_length is not None and len(value) > declared.max_length:
        return f"is longer than {declared.max_length} characters"
    return ""


def bad_number(value: float, declared: inspect.IntType | inspect.FloatType) -> str:
    """Say what is wrong with a number; nothing if it may stand."""
    if not math.isfinite(value):
        return "is not a finite number"
    if declared.gt is not None and value <= declared.gt:
        return f"is not more than {declared.gt:g}"
    if declared.ge is not None and value < declared.ge:
        return f"is less than {declared.ge:g}"
    if declared.lt is not None and value >= declared.lt:
        return f"is not less than {declared.lt:g}"
    if declared.le is not None and value > declared.le:
        return f"is more than {declared.le:g}"
    return ""


def did_you_mean(name: str, known: Any) -> str:
    """Name the near ones, or all there are."""
    close = near(name, known)
    if close:
        return "did you mean " + " or ".join(f"`{c}`" for c in close) + "?"
    return "there is: " + ", ".join(known)


def example(shape: Shape, path: str) -> str:
    """Return `for example ...` from the notes of a field."""
    examples = shape.notes.get("examples")
    if not examples:
        return f"`modelyard explain {shown(path)}` shows how"
    name = shown(path).rpartition(".")[2]
    return f"for example `{name}: {inline(examples[0])}`"


def homes(shape: Shape, name: str, path: str = "") -> list[str]:
    """Return the sections that have a field of this name."""
    match shape.type:
        case inspect.StructType() as struct:
            fields = fields_of(struct)
            found = [path] if name in fields and shape.form != "one_key" else []
            for inner, declared in fields.items():
                found += homes(shape_of(declared.type), name, f"{path}.{inner}" if path else inner)
            return found
        case inspect.DictType() | inspect.VarTupleType():
            return homes(shape.item, name, path)
        case _:
            return []
