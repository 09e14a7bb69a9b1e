"""What a consumer relies on: requests that it makes, and the parts of the answers that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from modelyard._kit.fields import Column, Section

__all__ = ["Answer", "Broken", "Consumer", "Interaction", "Relied", "Request", "broken_of", "found_at", "may_be"]

Kind = Literal["string", "number", "integer", "boolean", "null", "array", "object"]
_SHOWN = 80


class Relied(Section, frozen=True, kw_only=True):
    """What a part of an answer has to be; without anything, it only has to be there."""

    type: Annotated[
        tuple[Kind, ...],
        Meta(description="Its type in JSON, or several.", examples=["number"], extra_json_schema={"form": "texts"}),
    ] = ()
    one_of: Annotated[
        tuple[Any, ...],
        Meta(
            description="The values that the consumer knows; the endpoint may answer no other.", examples=[["a", "b"]]
        ),
    ] = ()
    between: Annotated[
        tuple[float, float] | None,
        Meta(description="Lowest and highest number.", examples=[[0, 1]]),
    ] = None
    equals: Annotated[Any, Meta(description="The very value.", examples=["<=50K"])] = None


class Request(Section, frozen=True, kw_only=True):
    """A request as the consumer makes it: rows or columns for `POST /predict`, or any other."""

    rows: Annotated[
        tuple[dict[Column, Any], ...],
        Meta(description="Rows for `POST /predict`.", examples=[[{"age": 38}]]),
    ] = ()
    columns: Annotated[
        dict[Column, tuple[Any, ...]],
        Meta(description="Columns for `POST /predict`.", examples=[{"age": [38]}]),
    ] = field(default_factory=dict)
    method: Annotated[
        Literal["GET", "POST", ""], Meta(description="Method; left out, POST where there is a body.", examples=["GET"])
    ] = ""
    path: Annotated[
        str, Meta(description="Path, with its leading slash.", pattern=r"^/[!-~]*\Z", examples=["/v2/health/ready"])
    ] = "/predict"
    body: Annotated[Any, Meta(description="Body as JSON; a text goes as it is.", examples=[{"inputs": []}])] = None
    headers: Annotated[
        dict[str, str], Meta(description="Headers beside the token.", examples=[{"Content-Type": "text/csv"}])
    ] = field(default_factory=dict)


class Answer(Section, frozen=True, kw_only=True):
    """What the consumer relies on of the answer."""

    status: Annotated[int, Meta(description="Its status.", ge=100, le=599, examples=[200])] = 200
    fields: Annotated[
        dict[str, Relied],
        Meta(
            description="Parts of the body by JSON Pointer (RFC 6901), where `*` stands for every item of a list.",
            examples=[{"/predictions/*/label": {"one_of": ["<=50K", ">50K"]}}],
        ),
    ] = field(default_factory=dict)
    headers: Annotated[
        dict[str, Relied], Meta(description="Headers by name.", examples=[{"x-model-version": {"type": "string"}}])
    ] = field(default_factory=dict)


class Interaction(Section, frozen=True, kw_only=True):
    """One request, and what comes back."""

    name: Annotated[str, Meta(description="What it is for.", min_length=1, examples=["a clerk asks for one person"])]
    request: Annotated[Request, Meta(description="What is asked.", examples=[{"rows": [{"age": 38}]}])]
    answer: Annotated[Answer, Meta(description="What is relied on of the answer.", examples=[{"status": 200}])] = (
        Answer()
    )


class Consumer(Section, frozen=True, kw_only=True):
    """A contract file: who relies on what."""

    consumer: Annotated[str, Meta(description="Who relies on it.", min_length=1, examples=["billing"])]
    interactions: Annotated[
        tuple[Interaction, ...], Meta(description="What is asked, and what has to come back.", min_length=1)
    ]
    endpoint: Annotated[str, Meta(description="Name of the endpoint; left out, any.", examples=["income"])] = ""
    role: Annotated[
        Literal["viewer", "analyst", "operator", "admin"],
        Meta(description="Role of the token that the consumer has.", examples=["analyst"]),
    ] = "analyst"


class Broken(Struct, frozen=True, kw_only=True):
    """A promise that does not hold.

    Attributes:
        consumer: Who relies on it.
        interaction: Name of the interaction.
        field: JSON Pointer of the part of the answer; `status`, or `header NAME`.
        wanted: What is relied on.
        got: What there is.
    """

    consumer: str
    interaction: str
    field: str
    wanted: str
    got: str


def found_at(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each part of a JSON value that a pointer leads to; `...` where there is nothing."""
    yield from _walk(value, _parts(pointer), "")


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _walk(value: Any, parts: Sequence[str], place: str) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield place, value
        return
    part, rest = parts[0], parts[1:]
    at = f"{place}/{part}"
    if isinstance(value, list) and part == "*":
        for number, item in enumerate(value):
            yield from _walk(item, rest, f"{place}/{number}")
        if not value:
            yield at, ...
    elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
        yield from _walk(value[int(part)], rest, at)
    elif isinstance(value, dict) and part in value:
        yield from _walk(value[part], rest, at)
    else:
        yield at, ...


def broken_of(relied: Relied, value: Any) -> tuple[str, str] | None:
    """Return what was wanted of a value and what it is; none if it is as it should be."""
    kinds = relied.type
    if value is ...:
        return (" or ".join(kinds) if kinds else "to be there"), "nothing"
    if kinds and not any(_is(value, kind) for kind in kinds):
        return " or ".join(kinds), _shown(value)
    if relied.equals is not None and not _same(value, relied.equals):
        return _shown(relied.equals), _shown(value)
    if relied.one_of and not any(_same(value, one) for one in relied.one_of):
        return f"one of {', '.join(map(_shown, relied.one_of))}", _shown(value)
    if relied.between is not None:
        low, high = relied.between
        if not _is(value, "number") or not low <= value <= high:
            return f"a number between {low:g} and {high:g}", _shown(value)
    return None


def may_be(document: dict[str, Any], pointer: str, relied: Relied) -> list[Any]:
    """Return values that `POST /predict` may answer at a place, by its description, and a consumer does not know."""
    schema: Any = document["components"]["schemas"]["Answer"]
    for part in _parts(pointer):
        schema = _resolved(document, schema)
        schema = schema.get("items") if part == "*" or part.isdigit() else schema.get("properties", {}).get(part)
        if not schema:
            return []
    known = _resolved(document, schema).get("enum", ())
    return [value for value in known if relied.one_of and not any(_same(value, one) for one in relied.one_of)]


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are one; true is not 1."""
    return (type(one) is type(other) and one == other) or (_is(one, "number") and _is(other, "number") and one == other)


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    return value is None


def _shown(value: Any) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
