"""Say what a field of the file is, from the declaration itself."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from modelyard._kit.errors import NotFound, near
from modelyard._kit.fields import write_duration
from modelyard.spec.sample import block, inline
from modelyard.spec.shape import Shape, default_of, fields_of, root_shape, shape_of, wanted

__all__ = ["Explained", "explain", "paths"]

# What stands for a name that the user gives.
_ANY = "NAME"
_SAMPLES = {"data": "applicants", "contract": "age", "steps": "clean", "inputs": "table", "params": "threshold"}


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one field.

    Attributes:
        path: Where it stands, e.g. `model.split.by`; `NAME` for a name that the user gives.
        about: What it is.
        takes: What may be written.
        required: Whether it must be there.
        default: What it is when it is left out, as it would be written.
        example: Lines as they would stand in the file.
        fields: Fields below it, and what each is.
        defaults: What those of them are that are left out, as they would be written.
    """

    path: str
    about: str
    takes: str
    required: bool
    default: str
    example: str
    fields: dict[str, str]
    defaults: dict[str, str] = {}


def explain(path: str) -> Explained:
    """Explain a field by its dotted path; names of tables, columns and list items may be left out.

    Args:
        path: For example `model.split.by`, `data.from`, or just `trials` where only one field is called so.
            Empty for the whole file.

    Raises:
        NotFound: There is no such field; the near ones are named.

    Examples:
        >>> explain("model.split.by").default
        'random'
    """
    wanted_path = [part for part in path.strip().strip(".").split(".") if part and not part.isdigit()]
    found = _walk(wanted_path)
    if found is None:
        same_name = [p for p in paths() if p.split(".")[-len(wanted_path) :] == wanted_path]
        if len(same_name) == 1:
            return explain(same_name[0])
        raise _unknown(path, same_name)
    return found


def paths() -> list[str]:
    """Return the path of every field, in the order of the file."""
    found: list[str] = []

    def visit(shape: Shape, path: str) -> None:
        match shape.type:
            case inspect.StructType() as struct:
                for name, declared in fields_of(struct).items():
                    inner = f"{path}.{name}" if path else name
                    found.append(inner)
                    visit(shape_of(declared.type), inner)
            case inspect.DictType():
                visit(shape.item, f"{path}.{_ANY}")
            case inspect.VarTupleType():
                visit(shape.item, path)

    visit(root_shape(), "")
    return found


def _unknown(path: str, same_name: list[str]) -> NotFound:
    if same_name:
        listed = ", ".join(f"`{p}`" for p in same_name[:6])
        return NotFound("field-not-found", f"several fields are called `{path}`", hint=f"say which: {listed}")
    known = paths()
    last_words = near(path.rpartition(".")[2], {p.rpartition(".")[2] for p in known})
    close = near(path, known) or [p for p in known if p.rpartition(".")[2] in last_words]
    hint = "`modelyard explain` lists the sections"
    if close:
        hint = "did you mean " + " or ".join(f"`{c}`" for c in close[:3]) + "?"
    return NotFound("field-not-found", f"there is no field `{path}`", hint=hint)


def _walk(parts: list[str]) -> Explained | None:
    shape, path, field = root_shape(), [], None
    rest = list(parts)
    while True:
        if isinstance(shape.type, inspect.DictType):
            if rest and (rest[0] == _ANY or not _has(shape.item, rest[0])):
                path.append(rest.pop(0))
            elif rest:
                path.append(_ANY)
            else:
                return _explained(path, shape, field)
            shape, field = shape.item, None
        elif rest and isinstance(shape.type, inspect.VarTupleType):
            shape = shape.item
        elif rest and isinstance(shape.type, inspect.StructType):
            fields = fields_of(shape.type)
            if rest[0] not in fields:
                return None
            field = fields[rest[0]]
            path.append(rest.pop(0))
            shape = shape_of(field.type)
        else:
            return None if rest else _explained(path, shape, field)


def _has(shape: Shape, name: str) -> bool:
    return isinstance(shape.type, inspect.StructType) and name in fields_of(shape.type)


def _explained(path: list[str], shape: Shape, field: inspect.Field | None) -> Explained:
    inner = shape
    while isinstance(inner.type, inspect.DictType | inspect.VarTupleType):
        inner = inner.item
    below, defaults = {}, {}
    if isinstance(inner.type, inspect.StructType):
        optional = {name: one for name, one in fields_of(inner.type).items() if not one.required}
        defaults = {name: said for name, one in optional.items() if (said := _default(one))}
        below = {
            name: str(shape_of(declared.type).notes.get("description", ""))
            for name, declared in fields_of(inner.type).items()
        }
    required = field is not None and field.required
    about = str(shape.notes.get("description", "")) or _doc(shape)
    examples = shape.notes.get("examples")
    return Explained(
        path=".".join(path),
        about=about,
        takes=wanted(shape),
        required=required,
        default="" if field is None or required else _default(field),
        example=_example(path, examples[0]) if examples else "",
        fields=below,
        defaults=defaults,
    )


def _doc(shape: Shape) -> str:
    if isinstance(shape.type, inspect.StructType):
        return (shape.type.cls.__doc__ or "").partition("\n")[0]
    return ""


def _default(field: inspect.Field) -> str:
    value = default_of(field)
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, msgspec.Struct):
        return ""
    shape = shape_of(field.type)
    if shape.form == "share":
        return f"{value * 100:g}%"
    if shape.form == "duration":
        return write_duration(value)
    return inline(value)


def _example(path: list[str], value: Any) -> str:
    """Return the value as it stands in the file, inside everything around it."""
    shape = root_shape()
    steps: list[str | None] = []
    for part in path:
        while isinstance(shape.type, inspect.VarTupleType):
            # An item of a list.
            steps.append(None)
            shape = shape.item
        if isinstance(shape.type, inspect.DictType):
            last = next((s for s in reversed(steps) if s), "")
            steps.append(_SAMPLES.get(last, "name") if part == _ANY else part)
            shape = shape.item
            continue
        steps.append(part)
        assert isinstance(shape.type, inspect.StructType)  # noqa: S101 - for the type checker
        shape = shape_of(fields_of(shape.type)[part].type)
    for step in reversed(steps):
        value = [value] if step is None else {step: value}
    return block(value)
