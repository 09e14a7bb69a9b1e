"""Single values as callers send them, and the JSON they stand in: taken, or refused by row and column."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from modelyard.records import Feature
from modelyard.serving.errors import HttpError, bad

__all__ = ["BOM", "UNREADABLE", "category", "coerced", "decode", "names_in", "number", "once", "shown_truth"]

# What the parser raises for bytes that are no JSON, no UTF-8, or nested without end.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# Where the parser stopped.
_PLACE = re.compile(r"\(byte (\d+)\)")
# A number as a text shows it: no NaN, no Infinity, no digits of other scripts.
_SHOWN = re.compile(r"\s*[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?\s*")

# Some editors and libraries put it before everything; who reads JSON may pass over it (RFC 8259, section 8.1).
BOM = b"\xef\xbb\xbf"
_TRUTHS = {"true": 1.0, "false": 0.0}


def decode(body: bytes) -> Any:
    """Decode JSON.

    Raises:
        HttpError: It is none (`body-not-json`), says NaN or Infinity (`value-not-finite`), or has a name twice in one
            object (`name-twice`).
    """
    try:
        data = msgspec.json.decode(body)
    except UNREADABLE as error:
        if not body.startswith(BOM):
            raise _refusal(body, error) from None
        body = body[len(BOM) :]
        try:
            data = msgspec.json.decode(body)
        except UNREADABLE as second:
            raise _refusal(body, second) from None
    once(body, names_in(data))
    return data


def _refusal(body: bytes, error: Exception) -> HttpError:
    """Return what is said of bytes that the parser did not take."""
    if "out of range" in str(error):
        return bad("value-not-finite", "a number in the body is larger than a double can be (1.8e308)")
    if b"NaN" in body or b"Infinity" in body:
        return bad("value-not-finite", "NaN and Infinity are no numbers in JSON; give null where a value is not known")
    return bad(
        "body-not-json", f"the body is not JSON in UTF-8{_where(error)}" if body else "the body is empty: send JSON"
    )


def once(body: bytes, names: int) -> None:
    """Refuse JSON that has a name twice in one object: which value counts, everybody who reads it says differently.

    Args:
        body: What was decoded.
        names: How many names came of it, or fewer: where there are as many colons, none was lost.

    Raises:
        HttpError: It has (`name-twice`).
    """
    if body.count(b":") > names:
        try:
            # What nobody reads was not looked at by who decoded the rest.
            json.loads(body.decode(), object_pairs_hook=_look_at, parse_int=len, parse_float=len)
        except (ValueError, RecursionError) as error:
            raise bad("body-not-json", f"the body is not JSON in UTF-8{_where(error)}") from None


def _look_at(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise bad("name-twice", f"`{name[:60]}` stands twice in one object")
        seen.add(name)


def names_in(data: Any) -> int:
    """Return how many names decoded JSON has where rows and columns have theirs: in an object, and one further in.

    Objects in a list beside something else, or still further in, count nothing.
    """
    if type(data) is not dict:
        return _in_list(data)
    inner = [value for value in data.values() if type(value) is dict]
    return len(data) + sum([len(one) for one in inner]) + sum([_in_list(value) for value in data.values()])


def _in_list(data: Any) -> int:
    return sum(map(len, data)) if type(data) is list and set(map(type, data)) == {dict} else 0


def _where(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return ": it is nested too deeply"
    if "truncated" in str(error):
        return ": it ends in the middle"
    place = _PLACE.search(str(error))
    return f": look near byte {place[1]}" if place else ""


def number(feature: Feature, row: int, value: Any) -> float | None:
    """Return the value of a number column.

    Raises:
        HttpError: It is no number, or too large a one.
    """
    if value is None or type(value) in (int, float):
        try:
            return value if value is None else float(value)
        except OverflowError:
            raise bad("value-not-finite", f"row {row}: `{feature.name}` is too large a number") from None
    if type(value) is bool and feature.source == "Boolean":
        return float(value)
    what = "true or false" if feature.source == "Boolean" else "a number"
    raise bad("column-type", f"row {row}: `{feature.name}` is {what} and was given {_kind(value)}")


def coerced(feature: Feature, value: Any) -> Any:
    """Return the number that a text shows, or what is given."""
    if type(value) is not str:
        return value
    if _SHOWN.fullmatch(value):
        return float(value)
    truth = shown_truth(feature, value)
    return value if truth is None else truth


def shown_truth(feature: Feature, text: str) -> float | None:
    """Return 1 or 0 for the text of true or false in a column of these; none for anything else."""
    return _TRUTHS.get(text.strip().lower()) if feature.source == "Boolean" else None


def category(feature: Feature, row: int, value: Any) -> str:
    """Return the text of a value of a category column that is none: empty, for a missing one.

    Raises:
        HttpError: It is something else.
    """
    if value is not None:
        raise bad("column-type", f"row {row}: `{feature.name}` is a text and was given {_kind(value)}")
    return ""


def _kind(value: Any) -> str:
    kinds = {
        str: "a text",
        bool: "true or false",
        list: "a list",
        dict: "an object",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "nothing")
