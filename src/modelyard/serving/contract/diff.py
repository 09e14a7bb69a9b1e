"""What changes for callers from one description of an endpoint to another, and what of it breaks them.

A caller is broken where less is taken than before (a column more, a type less, a missing value no more), and where
more is answered than before or something is gone (a class, a field, a route).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

__all__ = ["Change", "changes"]

Direction = Literal["asked", "answered"]
_PREFIX = "#/components/schemas/"
_BOUNDS = (("minimum", 1), ("minLength", 1), ("minItems", 1), ("maximum", -1), ("maxLength", -1), ("maxItems", -1))
# What says once more what `Row` says of each column.
_OF_COLUMNS = {"InferInput", "Invocation", "Lists", "RowInOrder"}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference.

    Attributes:
        breaking: Whether a caller of the old one may fail with the new one.
        what: What it is about: a column, a field, a route.
        why: What is different, and what comes of it.
    """

    breaking: bool
    what: str
    why: str


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Return the differences of two descriptions, breaking ones first, each once.

    Args:
        old: The description that callers know.
        new: The one that takes its place.
    """
    found = [*_routes(old, new), *_Schemas(old, new).compare()]
    # A column stands in several bodies, and is told once.
    unique = list(dict.fromkeys((change.breaking, change.what, change.why) for change in found))
    kept = [Change(breaking=b, what=what, why=why) for b, what, why in unique]
    return sorted(kept, key=lambda change: not change.breaking)


def _routes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
    if old["info"]["title"] != new["info"]["title"]:
        before, after = old["info"]["title"], new["info"]["title"]
        yield Change(
            breaking=True, what="endpoint", why=f"it was `{before}` and is `{after}`: /v2 names it in its paths"
        )
    before, after = _operations(old), _operations(new)
    for name in sorted(before.keys() - after.keys()):
        yield Change(breaking=True, what=name, why="is gone")
    for name in sorted(after.keys() - before.keys()):
        yield Change(breaking=False, what=name, why="is new")
    for name in sorted(before.keys() & after.keys()):
        yield from _operation(name, old, new, before[name], after[name])


def _operation(
    name: str, old: dict[str, Any], new: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> Iterator[Change]:
    if before.get("security") == [] and after.get("security") != []:
        yield Change(breaking=True, what=name, why="needs a token now")
    known = {one["name"].lower() for one in _parameters(old, before)}
    for one in _parameters(new, after):
        if one.get("required") and one["name"].lower() not in known:
            yield Change(breaking=True, what=name, why=f"the header `{one['name']}` must be given now")
    for where in ("requestBody", "responses"):
        taken, takes = (set(_contents(operation, where)) for operation in (before, after))
        for kind in sorted(taken - takes):
            yield Change(breaking=True, what=name, why=f"`{kind}` is not {_VERB[where]} any more")


_VERB = {"requestBody": "taken", "responses": "answered"}


def _contents(operation: dict[str, Any], where: str) -> list[str]:
    return list(_part(operation, where).get("content", ()))


def _parameters(document: dict[str, Any], operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for one in operation.get("parameters", ()):
        yield document["components"]["parameters"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one


def _operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


class _Schemas:
    """Compares the schemas of two descriptions, each in the direction in which it is used."""

    def __init__(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        self._old, self._new = old["components"]["schemas"], new["components"]["schemas"]
        self._used = {"asked": _reached(old, "requestBody"), "answered": _reached(old, "responses")}
        self._found: list[Change] = []

    def compare(self) -> list[Change]:
        """Return what is different."""
        for direction, names in self._used.items():
            for name in sorted((names & self._new.keys()) - _OF_COLUMNS - self._vague()):
                self._schema(direction, f"`{name}`", self._old[name], self._new[name])  # type: ignore[arg-type]
        self._order()
        return self._found

    def _vague(self) -> set[str]:
        """Return what an older description said less of than was so: that it says more does not narrow anything."""
        truth = self._old.get("Outcome", {}).get("properties", {}).get("truth", {})
        return set() if {"enum", "pattern"} & truth.keys() else {"Outcome"}

    def _order(self) -> None:
        """Rows without names, and the tensors of all columns, have the columns in their order."""
        before, after = (list(schemas.get("Row", {}).get("properties", ())) for schemas in (self._old, self._new))
        if before != after and sorted(before) == sorted(after):
            self._say(True, "columns", "have another order: rows and tensors without names mean something else")

    def _say(self, breaking: bool, what: str, why: str) -> None:
        self._found.append(Change(breaking=breaking, what=what, why=why))

    def _schema(self, direction: Direction, what: str, old: Any, new: Any) -> None:
        """Compare two schemas of one thing."""
        if old == new or not isinstance(old, dict) or not isinstance(new, dict):
            return
        self._kinds(direction, what, old, new)
        self._values(direction, what, old, new)
        self._bounds(direction, what, old, new)
        self._properties(direction, what, old, new)
        if old.get("type") == "array" and "items" in old:
            self._schema(direction, what, old["items"], new.get("items"))
        self._seen(what, old, new)

    def _kinds(self, direction: Direction, what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        before, after = _types(old), _types(new)
        if not before or not after:
            return
        # Whoever reads numbers reads integers, too.
        less, more = sorted(before - after), sorted(after - before)
        less = [] if less == ["integer"] and "number" in after else less
        if direction == "asked":
            if less == ["null"]:
                self._say(True, what, "may not be missing any more: null is refused")
            elif less:
                self._say(True, what, f"was {_or(before)} and is {_or(after)}: what callers send is refused")
            elif more:
                self._say(False, what, f"may be {_or(set(more))}, too")
        elif more == ["null"]:
            self._say(True, what, "may be null now")
        elif more:
            self._say(True, what, f"was {_or(before)} and is {_or(after)}")

    def _values(self, direction: Direction, what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        before, after = old.get("enum"), new.get("enum")
        if direction == "asked":
            if after is not None and before is None:
                self._say(True, what, "takes the values seen in training alone now")
            elif after is not None and before is not None and (gone := [v for v in before if v not in after]):
                self._say(True, what, f"does not take {_list(gone)} any more")
            return
        if before is None or after is None:
            if before != after and not (_types(old) and _types(new)):
                self._say(True, what, "is answered as something else")
            return
        if gone := [value for value in before if value not in after]:
            self._say(True, what, f"{_list(gone)} is not answered any more")
        if more := [value for value in after if value not in before]:
            self._say(True, what, f"{_list(more)} may be answered now, which callers do not know")

    def _bounds(self, direction: Direction, what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        for key, sign in _BOUNDS:
            before, after = old.get(key), new.get(key)
            if before == after:
                continue
            narrower = before is None or (after is not None and (after - before) * sign > 0)
            told = f"`{key}` was {before} and is {after}"
            if direction == "asked":
                self._say(narrower, what, told)
            else:
                self._say(not narrower, what, told)

    def _properties(self, direction: Direction, what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        before, after = old.get("properties", {}), new.get("properties", {})
        kept_old, kept_new = set(old.get("required", ())), set(new.get("required", ()))
        noun = "column" if direction == "asked" and what != "`Outcome`" else "field"
        for name in before:
            about = f"{noun} `{name}`"
            if name not in after:
                open_ = direction == "asked" and new.get("additionalProperties", True) is not False
                gone = "is gone: requests that send it are refused" if direction == "asked" else "is gone"
                self._say(not open_, about, gone)
            elif direction == "asked" and name in kept_new - kept_old:
                self._say(True, about, "must be given now")
            elif direction == "answered" and name in kept_old - kept_new:
                self._say(True, about, "may be left out now")
            if name in after:
                self._schema(direction, about, before[name], after[name])
        for name in sorted(after.keys() - before.keys()):
            about = f"{noun} `{name}`"
            if direction == "asked" and name in kept_new:
                self._say(True, about, "is new and must be given: requests without it are refused")
            else:
                self._say(False, about, "is new")

    def _seen(self, what: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        """What was seen in training changes warnings, not what is taken."""
        # Whether values missed there is told where null is refused, which `_kinds` says.
        before, after = ({**one.get("x-seen", {}), "missing": False} for one in (old, new))
        if before != after:
            self._say(False, what, "other values were seen in training: warnings may differ")


def _reached(document: dict[str, Any], where: str) -> set[str]:
    """Return the names of the schemas that requests or answers are made of."""
    schemas = document["components"]["schemas"]
    waiting = [name for op in _operations(document).values() for name in _refs(_part(op, where))]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found and name in schemas:
            found.add(name)
            waiting += _refs(schemas[name])
    return found


def _part(operation: dict[str, Any], where: str) -> Any:
    found = operation.get(where, {})
    return found if where == "requestBody" else found.get("200", {})


def _refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"].removeprefix(_PREFIX)] if str(value.get("$ref", "")).startswith(_PREFIX) else []
        return here + [name for inner in value.values() for name in _refs(inner)]
    return [name for inner in value for name in _refs(inner)] if isinstance(value, list) else []


def _types(schema: dict[str, Any]) -> set[str]:
    kinds = schema.get("type", ())
    return {kinds} if isinstance(kinds, str) else set(kinds)


def _or(kinds: set[str]) -> str:
    return " or ".join(sorted(kinds))


def _list(values: list[Any]) -> str:
    shown = [f"`{'null' if value is None else value}`" for value in values[:8]]
    return ", ".join(shown) + (", ..." if len(values) > len(shown) else "")
