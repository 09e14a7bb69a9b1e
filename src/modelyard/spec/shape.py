"""What a place in the file takes: the declared type without its wrapping, and the notes on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from msgspec import NODEFAULT, inspect

from modelyard._kit.stopping import unstopped

__all__ = ["Shape", "default_of", "fields_of", "placeholder", "root_shape", "shape_of", "wanted"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One type.

    Attributes:
        type: The type itself, never `Metadata` and never a union with nothing.
        notes: `description`, `examples`, `enum`, and what only we read (`form`, `say`, `noun`).
        nullable: Whether nothing (`null`) is an answer.
    """

    type: inspect.Type
    notes: dict[str, Any]
    nullable: bool = False

    @property
    def form(self) -> str:
        """How it is read: `duration`, `share`, `size`, `texts`, `label`, `one_key`, `short` or as it is."""
        return str(self.notes.get("form", ""))

    @property
    def values(self) -> tuple[Any, ...]:
        """The only values allowed; empty where there is no such list."""
        if isinstance(self.type, inspect.LiteralType):
            return tuple(self.type.values)
        return tuple(self.notes.get("enum", ()))

    @property
    def item(self) -> Shape:
        """What each item of a list or each value of a mapping is."""
        if isinstance(self.type, inspect.DictType):
            return shape_of(self.type.value_type)
        if isinstance(self.type, inspect.VarTupleType):
            return shape_of(self.type.item_type)
        raise TypeError(self.type)


def shape_of(declared: inspect.Type) -> Shape:
    """Unwrap a declared type; notes further out win."""
    notes: dict[str, Any] = {}
    nullable = False
    while True:
        if isinstance(declared, inspect.Metadata):
            notes = {**(declared.extra_json_schema or {}), **notes}
            declared = declared.type
        elif isinstance(declared, inspect.UnionType) and declared.includes_none:
            nullable = True
            rest = tuple(t for t in declared.types if not isinstance(t, inspect.NoneType))
            declared = rest[0] if len(rest) == 1 else inspect.UnionType(rest)
        else:
            return Shape(declared, notes, nullable)


@cache
def root_shape() -> Shape:
    """The shape of the whole file."""
    from modelyard.spec.declaration import Declaration

    # msgspec keeps what it learnt of a type half done where that is broken off, and ends the process in native code.
    with unstopped():
        return shape_of(inspect.type_info(Declaration))


def fields_of(struct: inspect.StructType) -> dict[str, inspect.Field]:
    """Return the fields of a section by their names in the file."""
    return {f.encode_name: f for f in struct.fields}


def default_of(field: inspect.Field) -> Any:
    """Return the default of a field; only for fields that have one."""
    if field.default is not NODEFAULT:
        return field.default
    return field.default_factory()


def placeholder(shape: Shape) -> Any:
    """Return an empty value of the type, to stand where the given one could not be used."""
    match shape.type:
        case _ if shape.nullable:
            return None
        case inspect.StructType(cls=cls) as struct:
            return cls(**{f.name: placeholder(shape_of(f.type)) for f in struct.fields if f.required})
        case inspect.VarTupleType():
            return ()
        case inspect.DictType():
            return {}
        case inspect.IntType() | inspect.FloatType():
            return 0
        case inspect.BoolType():
            return False
        case inspect.AnyType():
            return None
        case _:
            return ""


_FORMS = {
    "duration": "a time with a unit (`30s`, `2h`, `7d`)",
    "share": "a share (`20%` or `0.2`)",
    "size": "a size with a unit (`500MB`, `2GB`, `1GiB`)",
    "texts": "a text or a list of texts",
    "sections": "fields with values, or a list of such",
}
_PLAIN: dict[type[inspect.Type], str] = {
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "`true` or `false`",
    inspect.AnyType: "any value",
}


def wanted(shape: Shape) -> str:
    """Say what a place takes, in a few words."""
    if shape.form in _FORMS:
        return _FORMS[shape.form]
    if shape.form == "one_key":
        return f"one {shape.notes['noun']} with its settings"
    if shape.values:
        return "one of " + ", ".join(f"`{v}`" for v in shape.values)
    match shape.type:
        case inspect.StructType() as struct if shape.form == "short":
            return f"{wanted(shape_of(fields_of(struct)[shape.notes['short']].type))}, or fields with values"
        case inspect.StructType() | inspect.DictType():
            return "fields with values"
        case inspect.VarTupleType():
            return f"a list, each item {wanted(shape.item)}"
        case inspect.TupleType(item_types=items):
            inner = [shape_of(t) for t in items]
            return f"a list of {len(items)}: " + ", ".join(
                wanted(s) + (" or `null`" if s.nullable else "") for s in inner
            )
        case inspect.IntType() | inspect.FloatType() | inspect.BoolType() | inspect.AnyType():
            return _PLAIN[type(shape.type)]
        case inspect.UnionType(types=types):
            return " or ".join(dict.fromkeys(wanted(shape_of(t)) for t in types))
        case _:
            return str(shape.notes.get("say", "a text"))
