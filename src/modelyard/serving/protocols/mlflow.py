"""The scoring protocol of MLflow: `POST /invocations` and `GET /ping`.

Every way in which its clients write a table is read into columns by name and held against the signature like any other
request. Rows without names have the order of the columns in the training table.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import Any

import msgspec

from modelyard._kit.text import plural
from modelyard.records import Feature
from modelyard.serving.asked import noted
from modelyard.serving.errors import HttpError, bad, named
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models
from modelyard.serving.parsed import Parsed
from modelyard.serving.service import Asked, Body, Service
from modelyard.serving.values import BOM, decode, names_in, number, once, shown_truth

__all__ = ["invocations", "ping"]

_encode = msgspec.json.Encoder().encode
_KEYS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def ping(models: Models, exchange: Exchange) -> bytes:
    """Say that the server takes requests.

    Raises:
        HttpError: It does not (503).
    """
    models.check_ready()
    return b"{}"


def invocations(models: Models, exchange: Exchange) -> None:
    """Answer a table with one prediction a row: the label, or the value.

    Raises:
        HttpError: The body does not fit the signature, or is no JSON or CSV (415).
    """
    service = models.default
    kind = exchange.header(b"content-type").partition(b";")[0].strip().lower()
    if kind in (b"", b"application/json"):
        parsed = _parse_json(service, exchange.body)
    elif kind == b"text/csv":
        parsed = _parse_csv(service, exchange.body)
    else:
        raise HttpError(415, "body-type", "send `application/json` or `text/csv`")
    service.ask(exchange, parsed, _render)


def _render(service: Service, asked: Asked) -> bytes | Body:
    body = _encode({"predictions": asked.predictions})
    return Body(body, noted(asked)) if asked.shaped or asked.parsed.warnings else body


def _parse_json(service: Service, body: bytes) -> Parsed:
    data = _decode(body)
    given = [key for key in _KEYS if isinstance(data, dict) and key in data]
    if len(given) != 1 or any(data[key] for key in data if key not in given and key == "params"):
        raise bad(
            "body-shape", f"send an object with one of {', '.join(f'`{key}`' for key in _KEYS)}, without `params`"
        )
    for key in data:
        if key not in (given[0], "params"):
            raise named("body-shape", f"`{key[:60]}` is nothing that a request holds", key, _KEYS)
    value = data[given[0]]
    if given[0] == "dataframe_split":
        return _split(service, value)
    if isinstance(value, dict) and given[0] == "inputs":
        return service.validator.columns.read({n: v if isinstance(v, list) else [v] for n, v in value.items()})
    if not isinstance(value, list):
        raise bad("body-shape", f"`{given[0]}` holds a list of rows")
    if given[0] == "dataframe_records" or (value and isinstance(value[0], dict)):
        return _records(service, value)
    return _rows(service, list(_order(service)), value)


def _decode(body: bytes) -> Any:
    """Decode JSON in which NaN stands for a missing value: so MLflow's clients write a table of pandas."""
    try:
        return decode(body)
    except HttpError as error:
        if error.code != "value-not-finite" or b"NaN" not in body:
            raise
        body = body.removeprefix(BOM)
        try:
            data = json.loads(body.decode(), parse_constant={"NaN": None}.__getitem__)
        except (KeyError, ValueError, RecursionError):
            raise error from None
        once(body, names_in(data))
        return data


def _order(service: Service) -> tuple[str, ...]:
    return tuple(feature.name for feature in service.version.signature.features)


def _split(service: Service, value: Any) -> Parsed:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise bad("body-shape", "`dataframe_split` holds `columns` and `data`")
    columns = value.get("columns", list(_order(service)))
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise bad("body-shape", "`columns` of `dataframe_split` is a list of names")
    return _rows(service, columns, value["data"])


def _records(service: Service, rows: list[Any]) -> Parsed:
    columns = service.validator.columns
    if not rows:
        raise bad("rows-empty", "there is no row to answer")
    columns.check_count(len(rows))
    names = rows[0].keys() if isinstance(rows[0], dict) else ()
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise bad("body-shape", f"row {at} is not an object of column names and values")
        if row.keys() != names:
            raise bad("rows-uneven", f"row {at} has other columns than the row before it")
    return columns.read({name: [row[name] for row in rows] for name in names})


def _rows(service: Service, names: list[str], rows: list[Any]) -> Parsed:
    """Check rows whose columns have names elsewhere."""
    columns = service.validator.columns
    if not rows:
        raise bad("rows-empty", "there is no row to answer")
    columns.check_count(len(rows))
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise bad("body-shape", f"column `{twice[:60]}` is given twice")
    for at, row in enumerate(rows):
        if not isinstance(row, list):
            raise bad("body-shape", f"row {at} is not a list of values")
        if len(row) != len(names):
            raise bad("rows-uneven", f"row {at} has {plural(len(row), 'value')} for {plural(len(names), 'column')}")
    return columns.read({name: [row[at] for row in rows] for at, name in enumerate(names)})


def _parse_csv(service: Service, body: bytes) -> Parsed:
    """Read CSV with a line of names; an empty field is a missing value."""
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise bad("body-shape", "the body is not CSV in UTF-8") from None
    lines = [line for line in lines if line]
    if not lines:
        raise bad("rows-empty", "there is no row to answer")
    names, rows = lines[0], lines[1:]
    numbers = {feature.name: feature for feature in service.validator.numbers}
    for at, name in enumerate(names):
        if (feature := numbers.get(name)) is not None:
            for line, row in enumerate(rows):
                if at < len(row):
                    row[at] = _number(feature, line, row[at])  # type: ignore[call-overload]
    return _rows(service, names, [[value if value != "" else None for value in row] for row in rows])


def _number(feature: Feature, row: int, text: str) -> float | None:
    if not text.strip():
        return None
    if (truth := shown_truth(feature, text)) is not None:
        return truth
    try:
        # JSON's own words for a number, so that CSV takes what JSON takes: no NaN, no `1_000`.
        return msgspec.json.decode(text.strip(), type=float)
    except (msgspec.DecodeError, UnicodeEncodeError):
        if text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
            raise bad("value-not-finite", f"row {row}: `{feature.name}` is no number; leave the field empty") from None
        return number(feature, row, text)
