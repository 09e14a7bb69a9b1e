"""Turn nodes into the declared values, noting every mistake and going on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import inspect

from modelyard._kit.errors import near
from modelyard._kit.fields import parse_duration, parse_share, parse_size
from modelyard.spec.read import Entry, Listing, Mapping, Node, Scalar
from modelyard.spec.report import Report, shown
from modelyard.spec.shape import Shape, default_of, fields_of, placeholder, root_shape, shape_of, wanted
from modelyard.spec.words import bad_number, bad_text, did_you_mean, example, given, homes

__all__ = ["convert"]

_FAIL = object()


def convert(root: Mapping, report: Report, shape: Shape | None = None) -> tuple[Any, dict[str, tuple[int, int]]]:
    """Return the declaration, or another file of a given shape, and the line and column of every path in it.

    What cannot be used is noted in the report and stands as a default or an empty value, so that what does not
    depend on it can still be judged.
    """
    job = _Convert(report, shape or root_shape())
    job.places[""] = (root.line, root.column)
    return job.value(root, job.root, ""), job.places


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
    root: Shape
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def value(self, node: Node, shape: Shape, path: str) -> Any:
        """Return the value of a node, or a placeholder after noting what is wrong with it."""
        if isinstance(node, Scalar) and node.value is None:
            if isinstance(shape.type, inspect.StructType) and shape.form != "one_key":
                # `deploy:` with nothing (or only comments) below it is the section with its defaults.
                node = Mapping(node.line, node.column)
            elif shape.nullable:
                return None
        if shape.form == "short" and isinstance(node, Scalar):
            # `retries: 3` is `retries: {times: 3}`.
            node = Mapping(node.line, node.column, {shape.notes["short"]: Entry(node.line, node.column, node)})
        match shape.type:
            case inspect.StructType():
                found = self._one_key(node, shape, path) if shape.form == "one_key" else self._struct(node, shape, path)
            case inspect.DictType():
                found = self._dict(node, shape, path)
            case inspect.VarTupleType():
                found = self._listing(node, shape, path)
            case inspect.TupleType(item_types=items):
                found = self._row(node, items, shape, path)
            case inspect.AnyType():
                found = self._plain(node, path)
            case inspect.UnionType(types=types) if (inner := _of_kind(node, types)) is not None:
                return self.value(node, shape_of(inner), path)
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
                hint=did_you_mean(name, fields),
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
            problem = bad_text(name, key_shape)
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
                "spec-missing-field", f'"{shown(path)}" has no entry', *_at(node), hint=example(shape, path)
            )
            return _FAIL
        return values

    def _listing(self, node: Node, shape: Shape, path: str) -> Any:
        if shape.form == "texts" and isinstance(node, Scalar) and node.value is not None:
            node = Listing(node.line, node.column, [node])
        if shape.form == "sections" and isinstance(node, Mapping):
            # One of them needs no list.
            node = Listing(node.line, node.column, [node])
        if not isinstance(node, Listing):
            return self._wrong(node, shape, path)
        declared = shape.type
        assert isinstance(declared, inspect.VarTupleType)  # noqa: S101 - for the type checker
        values = tuple(self._items(node, shape, path))
        if len(values) < (declared.min_length or 0):
            self.report.add("spec-bad-value", f'"{shown(path)}" is empty', *_at(node), hint=example(shape, path))
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

    def _plain(self, node: Node, path: str) -> Any:
        """Return whatever stands there as plain JSON."""
        match node:
            case Mapping(entries=entries):
                fields = {name: self._plain(entry.value, _join(path, name)) for name, entry in entries.items()}
                return _FAIL if _FAIL in fields.values() else fields
            case Listing(items=items):
                values = [self._plain(item, path) for item in items]
                return _FAIL if _FAIL in values else values
            case Scalar(value=float() as value) if not math.isfinite(value):
                self.report.add(
                    "spec-bad-value",
                    f'"{node.text}" in "{shown(path)}" is not a finite number',
                    *_at(node),
                    hint="leave it out, or give it as a text",
                )
                return _FAIL
            case Scalar(value=value):
                return value
        raise TypeError(node)

    def _scalar(self, node: Node, shape: Shape, path: str) -> Any:
        if not isinstance(node, Scalar):
            return self._wrong(node, shape, path)
        if shape.form in ("duration", "share", "size"):
            return self._measure(node, shape, path)
        # A label is taken as it is written, whatever it looks like.
        value = node.text if shape.form == "label" and node.value is not None else node.value
        if shape.values:
            return self._choice(node, shape, path)
        match shape.type:
            case inspect.StrType() if isinstance(value, str):
                problem = bad_text(value, shape)
            case inspect.BoolType() if isinstance(value, bool):
                problem = ""
            case inspect.IntType() if isinstance(value, int) and not isinstance(value, bool):
                problem = bad_number(value, shape.type)
            case inspect.FloatType() if isinstance(value, int | float) and not isinstance(value, bool):
                value = _as_float(value)
                problem = bad_number(value, shape.type)
            case inspect.UnionType(types=types) if any(isinstance(t, _UNION[type(value)]) for t in types):
                problem = "" if not isinstance(value, float) or math.isfinite(value) else "is not a finite number"
            case _:
                return self._wrong(node, shape, path)
        if problem:
            self.report.add(
                "spec-bad-value", f'"{node.text}" for "{shown(path)}" {problem}', *_at(node), hint=example(shape, path)
            )
            return _FAIL
        return value

    def _measure(self, node: Scalar, shape: Shape, path: str) -> Any:
        ways: dict[str, Callable[[str], float]] = {"duration": parse_duration, "share": parse_share, "size": parse_size}
        code = {"duration": "spec-bad-duration", "share": "spec-bad-percentage", "size": "spec-bad-size"}[shape.form]
        value: float
        if shape.form == "share" and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            value = _as_float(node.value)
        elif shape.form == "duration" and node.text == "0":
            # No time needs no unit.
            value = 0.0
        else:
            try:
                value = ways[shape.form](node.text)
            except ValueError:
                return self._wrong(node, shape, path, code)
        assert isinstance(shape.type, inspect.FloatType | inspect.IntType)  # noqa: S101 - for the type checker
        problem = bad_number(value, shape.type)
        if problem:
            hint = example(shape, path)
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
            hint=did_you_mean(node.text, known),
        )
        return _FAIL

    def _wrong(self, node: Node, shape: Shape, path: str, code: str = "spec-wrong-type") -> Any:
        hint = example(shape, path)
        if isinstance(shape.type, inspect.StrType) and isinstance(node, Scalar) and node.value is not None:
            hint = f'put it in quotes if it is meant: `"{node.text}"`'
        self.report.add(code, f'"{shown(path)}" takes {wanted(shape)}, not {given(node)}', *_at(node), hint=hint)
        return _FAIL

    def _unknown(self, name: str, entry: Entry, fields: dict[str, inspect.Field], path: str) -> None:
        top = "modelyard.yaml" if self.root is root_shape() else "the file"
        section = f'"{shown(path)}"' if path else top
        hint = did_you_mean(name, fields)
        found = [home for home in homes(self.root, name) if home != shown(path)]
        if found:
            belongs = f"`{name}` belongs in " + " or ".join(f"`{home}`" if home else "the top" for home in found[:3])
            hint = f"{hint} {belongs}" if near(name, fields) else belongs
        self.report.add(
            "spec-unknown-field", f'"{name}" is not a field of {section}', entry.line, entry.column, hint=hint
        )
        if meant := near(name, fields, most=1):
            # What stands below it may be wrong, too; its values count for nothing.
            self.value(entry.value, _noted(fields[meant[0]]), _join(path, name))

    def _missing(self, name: str, declared: inspect.Field, node: Mapping, path: str) -> None:
        section = f'"{shown(path)}"' if path else "the file"
        line, column = self.places.get(path, _at(node))
        inner = _join(path, name)
        self.report.add(
            "spec-missing-field", f'{section} needs "{name}"', line, column, hint=example(_noted(declared), inner)
        )


def _noted(declared: inspect.Field) -> Shape:
    return shape_of(declared.type)


def _of_kind(node: Node, types: Sequence[inspect.Type]) -> inspect.Type | None:
    """Return the one type of a union that is for a list, or for a text of a certain form; none: any scalar will do."""
    if isinstance(node, Listing):
        return next((t for t in types if isinstance(shape_of(t).type, inspect.VarTupleType)), None)
    if not isinstance(node, Scalar):
        return None
    texts = [t for t in types if isinstance(shape_of(t).type, inspect.StrType)]
    lists = [t for t in types if isinstance(shape_of(t).type, inspect.VarTupleType)]
    return texts[0] if texts and lists else None


def _at(node: Node) -> tuple[int, int]:
    return node.line, node.column


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
