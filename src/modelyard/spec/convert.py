"""Turn nodes into the declared values, noting every mistake and going on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import inspect

from modelyard._kit.errors import near
from modelyard._kit.fields import parse_duration, parse_share
from modelyard.spec.read import Entry, Listing, Mapping, Node, Scalar
from modelyard.spec.report import Report, shown
from modelyard.spec.sample import inline
from modelyard.spec.shape import Shape, default_of, fields_of, placeholder, root_shape, shape_of, wanted

__all__ = ["convert"]

_FAIL = object()


def convert(root: Mapping, report: Report) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Return the declaration, and the line and column of every path in it.

    What cannot be used is noted in the report and stands as a default or an empty value, so that what does not
    depend on it can still be judged.
    """
    job = _Convert(report)
    job.places[""] = (root.line, root.column)
    return job.value(root, root_shape(), ""), job.places


# Type of a value in the file -> what it may be one of in a union.
_UNION: dict[type, tuple[type[inspect.Type], ...]] = {
    str: (inspect.StrType,),
    int: (inspect.IntType, inspect.FloatType),
    float: (inspect.FloatType,),
    bool: (inspect.BoolType,),
    type(None): (),
}


@dataclass(slots=True)
class _Convert:
    report: Report
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def value(self, node: Node, shape: Shape, path: str) -> Any:
        """Return the value of a node, or a placeholder after noting what is wrong with it."""
        if isinstance(node, Scalar) and node.value is None:
            if isinstance(shape.type, inspect.StructType) and shape.form != "one_key":
                # `deploy:` with nothing (or only comments) below it is the section with its defaults.
                node = Mapping(node.line, node.column)
            elif shape.nullable:
                return None
        match shape.type:
            case inspect.StructType():
                found = self._one_key(node, shape, path) if shape.form == "one_key" else self._struct(node, shape, path)
            case inspect.DictType():
                found = self._dict(node, shape, path)
            case inspect.VarTupleType():
                found = self._listing(node, shape, path)
            case inspect.TupleType(item_types=items):
                found = self._row(node, items, shape, path)
            case _:
                found = self._scalar(node, shape, path)
        if found is _FAIL:
            self.report.spoil(path)
            return placeholder(shape)
        return found

    def _struct(self, node: Node, shape: Shape, path: str) -> Any:
        if not isinstance(node, Mapping):
            return self._wrong(node, shape, path)
        struct = shape.type
        assert isinstance(struct, inspect.StructType)  # noqa: S101 - for the type checker
        fields = fields_of(struct)
        values: dict[str, Any] = {}
        for name, entry in node.entries.items():
            if name not in fields:
                self._unknown(name, entry, fields, path)
                continue
            inner = _join(path, name)
            self.places[inner] = (entry.line, entry.column)
            declared = fields[name]
            value = self.value(entry.value, _noted(declared), inner)
            if inner in self.report.bad and not declared.required:
                value = default_of(declared)
            values[declared.name] = value
        misspelt = {close[0] for name in node.entries if name not in fields and (close := near(name, fields))}
        for name, declared in fields.items():
            if declared.name in values:
                continue
            # One mistake is told once: `targt` is not also a missing `target`.
            if declared.required and name not in misspelt:
                self._missing(name, declared, node, path)
            if declared.required:
                values[declared.name] = placeholder(shape_of(declared.type))
            if declared.required or name in misspelt:
                self.report.spoil(_join(path, name))
        return struct.cls(**values)

    def _one_key(self, node: Node, shape: Shape, path: str) -> Any:
        noun = str(shape.notes["noun"])
        struct = shape.type
        assert isinstance(struct, inspect.StructType)  # noqa: S101 - for the type checker
        fields = fields_of(struct)
        if isinstance(node, Scalar) and node.text in fields:
            # `- parity` is `- parity:` without the colon.
            node = Mapping(
                node.line, node.column, {node.text: Entry(node.line, node.column, Scalar(*_at(node), None, ""))}
            )
        if not isinstance(node, Mapping):
            return self._wrong(node, shape, path)
        if len(node.entries) != 1:
            keys = " and ".join(f'"{k}"' for k in node.entries) or "nothing"
            self.report.add(
                "spec-wrong-type",
                f'an item of "{shown(path)}" is one {noun}, not {keys}',
                *_at(node),
                hint="begin each with `- ` and indent its settings below it",
            )
            return _FAIL
        name, entry = next(iter(node.entries.items()))
        if name not in fields:
            self.report.add(
                "spec-unknown-check",
                f'"{name}" is not a {noun}',
                entry.line,
                entry.column,
                hint=_did_you_mean(name, fields),
            )
            return _FAIL
        inner = _join(path, name)
        self.places[inner] = (entry.line, entry.column)
        settings = _noted(fields[name])
        value = self.value(entry.value, settings, inner)
        return struct.cls(**{fields[name].name: value})

    def _dict(self, node: Node, shape: Shape, path: str) -> Any:
        if not isinstance(node, Mapping):
            return self._wrong(node, shape, path)
        declared = shape.type
        assert isinstance(declared, inspect.DictType)  # noqa: S101 - for the type checker
        key_shape = shape_of(declared.key_type)
        values = {}
        for name, entry in node.entries.items():
            inner = _join(path, name)
            self.places[inner] = (entry.line, entry.column)
            problem = _bad_text(name, key_shape)
            if problem:
                self.report.add(
                    "spec-bad-value",
                    f'"{name}" in "{shown(path)}" {problem}',
                    entry.line,
                    entry.column,
                    hint="give it such a name",
                )
            values[name] = self.value(entry.value, shape.item, inner)
        if declared.min_length and len(values) < declared.min_length:
            self.report.add(
                "spec-missing-field", f'"{shown(path)}" has no entry', *_at(node), hint=_example(shape, path)
            )
            return _FAIL
        return values

    def _listing(self, node: Node, shape: Shape, path: str) -> Any:
        if shape.form == "texts" and isinstance(node, Scalar) and node.value is not None:
            node = Listing(node.line, node.column, [node])
        if not isinstance(node, Listing):
            return self._wrong(node, shape, path)
        declared = shape.type
        assert isinstance(declared, inspect.VarTupleType)  # noqa: S101 - for the type checker
        values = tuple(self._items(node, shape, path))
        if len(values) < (declared.min_length or 0):
            self.report.add("spec-bad-value", f'"{shown(path)}" is empty', *_at(node), hint=_example(shape, path))
            return _FAIL
        return values

    def _items(self, node: Listing, shape: Shape, path: str) -> Iterator[Any]:
        for index, item in enumerate(node.items):
            inner = _join(path, str(index))
            self.places[inner] = _at(item)
            yield self.value(item, shape.item, inner)

    def _row(self, node: Node, items: tuple[inspect.Type, ...], shape: Shape, path: str) -> Any:
        if not isinstance(node, Listing) or len(node.items) != len(items):
            return self._wrong(node, shape, path)
        return tuple(
            self.value(item, shape_of(t), _join(path, str(index)))
            for index, (item, t) in enumerate(zip(node.items, items, strict=True))
        )

    def _scalar(self, node: Node, shape: Shape, path: str) -> Any:
        if not isinstance(node, Scalar):
            return self._wrong(node, shape, path)
        if shape.form in ("duration", "share"):
            return self._measure(node, shape, path)
        if shape.form == "label" and node.value is not None:
            return node.text
        value = node.value
        if shape.values:
            return self._choice(node, shape, path)
        match shape.type:
            case inspect.StrType() if isinstance(value, str):
                problem = _bad_text(value, shape)
            case inspect.BoolType() if isinstance(value, bool):
                problem = ""
            case inspect.IntType() if isinstance(value, int) and not isinstance(value, bool):
                problem = _bad_number(value, shape.type)
            case inspect.FloatType() if isinstance(value, int | float) and not isinstance(value, bool):
                value = _as_float(value)
                problem = _bad_number(value, shape.type)
            case inspect.UnionType(types=types) if any(isinstance(t, _UNION[type(value)]) for t in types):
                problem = "" if not isinstance(value, float) or math.isfinite(value) else "is not a finite number"
            case _:
                return self._wrong(node, shape, path)
        if problem:
            self.report.add(
                "spec-bad-value", f'"{node.text}" for "{shown(path)}" {problem}', *_at(node), hint=_example(shape, path)
            )
            return _FAIL
        return value

    def _measure(self, node: Scalar, shape: Shape, path: str) -> Any:
        parse, code = (
            (parse_duration, "spec-bad-duration") if shape.form == "duration" else (parse_share, "spec-bad-percentage")
        )
        value: float
        if shape.form == "share" and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            value = _as_float(node.value)
        else:
            try:
                value = parse(node.text)
            except ValueError:
                return self._wrong(node, shape, path, code)
        assert isinstance(shape.type, inspect.FloatType)  # noqa: S101 - for the type checker
        problem = _bad_number(value, shape.type)
        if problem:
            hint = _example(shape, path)
            if shape.form == "share" and 1 < value <= 100:
                hint = f"did you mean `{node.text}%`?" if "%" not in node.text else hint
            self.report.add(code, f'"{node.text}" for "{shown(path)}" {problem}', *_at(node), hint=hint)
            return _FAIL
        return value

    def _choice(self, node: Scalar, shape: Shape, path: str) -> Any:
        if isinstance(node.value, str) and node.value in shape.values:
            return node.value
        if node.value is None:
            return self._wrong(node, shape, path)
        known = [str(v) for v in shape.values]
        self.report.add(
            "spec-bad-value",
            f'"{node.text}" is not one of the values of "{shown(path)}"',
            *_at(node),
            hint=_did_you_mean(node.text, known),
        )
        return _FAIL

    def _wrong(self, node: Node, shape: Shape, path: str, code: str = "spec-wrong-type") -> Any:
        hint = _example(shape, path)
        if isinstance(shape.type, inspect.StrType) and isinstance(node, Scalar) and node.value is not None:
            hint = f'put it in quotes if it is meant: `"{node.text}"`'
        self.report.add(code, f'"{shown(path)}" takes {wanted(shape)}, not {_given(node)}', *_at(node), hint=hint)
        return _FAIL

    def _unknown(self, name: str, entry: Entry, fields: dict[str, inspect.Field], path: str) -> None:
        section = f'"{shown(path)}"' if path else "modelyard.yaml"
        hint = _did_you_mean(name, fields)
        if not near(name, fields):
            homes = [home for home in _homes(root_shape(), name) if home != shown(path)]
            if homes:
                hint = f"`{name}` belongs in " + " or ".join(f"`{home}`" if home else "the top" for home in homes[:3])
        self.report.add(
            "spec-unknown-field", f'"{name}" is not a field of {section}', entry.line, entry.column, hint=hint
        )

    def _missing(self, name: str, declared: inspect.Field, node: Mapping, path: str) -> None:
        section = f'"{shown(path)}"' if path else "the file"
        line, column = self.places.get(path, _at(node))
        inner = _join(path, name)
        self.report.add(
            "spec-missing-field", f'{section} needs "{name}"', line, column, hint=_example(_noted(declared), inner)
        )


def _noted(declared: inspect.Field) -> Shape:
    return shape_of(declared.type)


def _at(node: Node) -> tuple[int, int]:
    return node.line, node.column


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _given(node: Node) -> str:
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


def _bad_text(value: str, shape: Shape) -> str:
    declared = shape.type
    assert isinstance(declared, inspect.StrType)  # noqa: S101 - for the type checker
    if declared.pattern and not re.search(declared.pattern, value):
        return f"is not {shape.notes.get('say', 'of the form ' + declared.pattern)}"
    if len(value) < (declared.min_length or 0):
        return "is empty"
    if declared.max_length is not None and len(value) > declared.max_length:
        return f"is longer than {declared.max_length} characters"
    return ""


def _bad_number(value: float, declared: inspect.IntType | inspect.FloatType) -> str:
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


def _did_you_mean(name: str, known: Any) -> str:
    close = near(name, known)
    if close:
        return "did you mean " + " or ".join(f"`{c}`" for c in close) + "?"
    return "there is: " + ", ".join(known)


def _example(shape: Shape, path: str) -> str:
    """Return `for example ...` from the notes of a field."""
    examples = shape.notes.get("examples")
    if not examples:
        return f"`modelyard explain {shown(path)}` shows how"
    name = shown(path).rpartition(".")[2]
    return f"for example `{name}: {inline(examples[0])}`"


def _homes(shape: Shape, name: str, path: str = "") -> list[str]:
    """Return the sections that have a field of this name."""
    match shape.type:
        case inspect.StructType() as struct:
            fields = fields_of(struct)
            homes = [path] if name in fields and shape.form != "one_key" else []
            for inner, declared in fields.items():
                homes += _homes(shape_of(declared.type), name, _join(path, inner))
            return homes
        case inspect.DictType() | inspect.VarTupleType():
            return _homes(shape.item, name, path)
        case _:
            return []
