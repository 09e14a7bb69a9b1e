"""The Open Inference Protocol, version 2, over REST with tensors as JSON.

A model's tensors are those of its signature, `numeric` and `categorical`; a caller may instead send one tensor a
column, under the column's name. The answer is `probabilities` and `label`, or `prediction`.
"""

from __future__ import annotations

import math
from types import GenericAlias
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.records import Feature
from modelyard.serving.connection import Exchange
from modelyard.serving.errors import HttpError, bad, check_id, named
from modelyard.serving.models import Models
from modelyard.serving.service import Asked, Service
from modelyard.serving.validate import UNREADABLE, Parsed, Validator, decode

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["infer", "model_metadata", "server_metadata", "version_of"]

_encode = msgspec.json.Encoder().encode
_INTS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
_FLOATS = ("FP16", "FP32", "FP64")
# Datatype -> what its JSON holds; null stands for a missing value.
_ITEMS: dict[str, Any] = {
    **dict.fromkeys(_FLOATS, float | None),
    **dict.fromkeys(_INTS, int | None),
    "BOOL": bool | None,
    "BYTES": str | None,
}
_FLAT = {name: msgspec.json.Decoder(GenericAlias(list, item)) for name, item in _ITEMS.items()}
_NESTED = {name: msgspec.json.Decoder(GenericAlias(list, GenericAlias(list, item))) for name, item in _ITEMS.items()}


class _Tensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Any] = {}


class _Wanted(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str = ""
    outputs: list[_Wanted] = []
    parameters: dict[str, Any] = {}


_decode_request = msgspec.json.Decoder(_Request).decode


def server_metadata() -> bytes:
    """Return the JSON of `GET /v2`; the version is that of the protocol."""
    return _encode({"name": "modelyard", "version": "2", "extensions": []})


def version_of(service: Service) -> str:
    """Return the name of the model's version: the first digits of its digest."""
    return service.version.digest[:12]


def model_metadata(service: Service) -> bytes:
    """Return the JSON of `GET /v2/models/NAME`."""
    validator = service.validator
    inputs = []
    if validator.numbers:
        inputs.append({"name": "numeric", "datatype": "FP32", "shape": [-1, len(validator.numbers)]})
    if validator.categories:
        inputs.append({"name": "categorical", "datatype": "BYTES", "shape": [-1, len(validator.categories)]})
    return _encode(
        {
            "name": service.endpoint,
            "versions": [version_of(service)],
            "platform": service.version.format,
            "inputs": inputs,
            "outputs": _outputs(service),
            "parameters": {
                "numeric": [f.name for f in validator.numbers],
                "categorical": [f.name for f in validator.categories],
                "classes": list(service.problem.classes),
            },
        }
    )


def _outputs(service: Service) -> list[dict[str, Any]]:
    classes = len(service.problem.classes)
    if service.problem.task == "regression":
        return [{"name": "prediction", "datatype": "FP32", "shape": [-1]}]
    return [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]


def infer(models: Models, exchange: Exchange) -> None:
    """Answer one inference request; an id in its body is the id of the request.

    Raises:
        HttpError: The request does not fit the signature.
    """
    service = models.find(exchange.model, exchange.version)
    binary = b"inference-header-content-length" in exchange.headers
    try:
        request = _decode_request(exchange.body)
    except UNREADABLE:
        raise _binary() if binary else _shape_of(exchange.body) from None
    if request.id:
        exchange.id = check_id(request.id)
    wanted = _wanted(service, request)
    parsed = _parse(service.validator, request.inputs)
    service.ask(exchange, parsed, lambda service, asked: _answer(service, asked, wanted))


def _wanted(service: Service, request: _Request) -> set[str]:
    known = [o["name"] for o in _outputs(service)]
    for output in request.outputs:
        if output.name not in known:
            raise named("tensor-unknown", f"the model has no output `{output.name[:60]}`", output.name, known)
    return {output.name for output in request.outputs} or set(known)


def _answer(service: Service, asked: Asked, wanted: set[str]) -> bytes:
    count = asked.parsed.count
    outputs: list[dict[str, Any]] = []
    if "prediction" in wanted:
        outputs.append(
            {"name": "prediction", "datatype": "FP32", "shape": [count], "data": [row[0] for row in asked.rows]}
        )
    if "probabilities" in wanted:
        shape = [count, len(service.problem.classes)]
        data = [value for row in asked.rows for value in row]
        outputs.append({"name": "probabilities", "datatype": "FP32", "shape": shape, "data": data})
    if "label" in wanted:
        names = dict(zip(service.labels, service.problem.classes, strict=True))
        labels = [names[row["prediction"]] for row in asked.decoded]
        outputs.append({"name": "label", "datatype": "BYTES", "shape": [count], "data": labels})
    body: dict[str, Any] = {
        "model_name": service.endpoint,
        "model_version": version_of(service),
        "id": asked.exchange.id,
        "outputs": outputs,
    }
    if asked.parsed.warnings:
        body["parameters"] = {"warnings": [w["message"] for w in asked.parsed.warnings]}
    return _encode(body)


def _parse(validator: Validator, tensors: list[_Tensor]) -> Parsed:
    given: dict[str, _Tensor] = {}
    kinds = {"numeric": validator.numbers, "categorical": validator.categories}
    known = (*(kind for kind, features in kinds.items() if features), *validator.names)
    for tensor in tensors:
        if tensor.name not in known:
            raise named("tensor-unknown", f"the model takes no tensor `{tensor.name[:60]}`", tensor.name, known)
        if tensor.name in given:
            raise bad("tensor-shape", f"tensor `{tensor.name[:60]}` is given twice")
        given[tensor.name] = tensor
    numeric, rows = _group(validator, given, "numeric", validator.numbers, None)
    categorical, rows = _group(validator, given, "categorical", validator.categories, rows)
    if given:
        name = next(iter(given))
        raise bad("tensor-shape", f"`{name}` is given twice: by itself and with all columns of its kind")
    if not rows:
        raise bad("rows-empty", "there is no row to answer")
    return validator.arrays(numeric, categorical)


def _group(
    validator: Validator, given: dict[str, _Tensor], whole: str, features: tuple[Feature, ...], rows: int | None
) -> tuple[Array | None, int | None]:
    """Take the columns of one kind out of what was given, as one tensor or as one a column."""
    import numpy as np

    if not features:
        return None, rows
    one = given.get(whole)
    if one is not None and (whole not in validator.features or len(one.shape) == 2):
        del given[whole]
        count = _rows(validator, one, len(features), rows)
        # Nothing is made room for before as many values are there as the shape says.
        flat = _numbers(one) if whole == "numeric" else np.array(_texts(one), object)
        return flat.reshape(count, len(features)), count
    columns: list[Any] = []
    for feature in features:
        tensor = given.pop(feature.name, None)
        if tensor is None:
            what = f"tensor `{whole}`" if not columns else f"tensor `{feature.name}`"
            raise bad("tensor-missing", f"{what} is not given; send `{whole}` with all its columns, or each by name")
        rows = _rows(validator, tensor, 1, rows)
        columns.append(_numbers(tensor) if whole == "numeric" else _texts(tensor))
    made: Array = np.empty((rows or 0, len(features)), np.float64 if whole == "numeric" else object)
    for at, column in enumerate(columns):
        made[:, at] = column
    return made, rows


def _rows(validator: Validator, tensor: _Tensor, width: int, rows: int | None) -> int:
    """Check a shape and return its number of rows."""
    shape = tensor.shape
    fits = (len(shape) == 2 and shape[1] == width) or (len(shape) == 1 and width == 1)
    if not fits or shape[0] < 0:
        want = f"[rows, {width}]" if width > 1 else "[rows] or [rows, 1]"
        raise bad("tensor-shape", f"`{tensor.name[:60]}` has the shape {_shown(shape)}; the model takes {want}")
    validator.check_count(shape[0])
    if rows is not None and shape[0] != rows:
        raise bad("rows-uneven", f"`{tensor.name[:60]}` has {shape[0]} rows and the tensor before it {rows}")
    return shape[0]


def _shown(shape: list[int]) -> str:
    """A shape as text, whatever its numbers are."""
    sizes = [str(n) if abs(n) < 10**12 else "very many" for n in shape[:8]]
    return f"[{', '.join(sizes)}{', ...' if len(shape) > 8 else ''}]"


def _numbers(tensor: _Tensor) -> Array:
    import numpy as np

    if tensor.datatype not in _FLOATS and tensor.datatype not in _INTS and tensor.datatype != "BOOL":
        raise bad("tensor-type", f"`{tensor.name[:60]}` holds numbers and has the datatype `{tensor.datatype[:20]}`")
    try:
        return np.array(_items(tensor), np.float64)
    except OverflowError:
        raise bad("value-not-finite", f"`{tensor.name[:60]}` holds too large a number") from None


def _texts(tensor: _Tensor) -> list[str]:
    if tensor.datatype != "BYTES":
        raise bad("tensor-type", f"`{tensor.name[:60]}` holds texts and has the datatype `{tensor.datatype[:20]}`")
    return [item or "" for item in _items(tensor)]


def _items(tensor: _Tensor) -> list[Any]:
    """Decode a tensor's data, flat or row by row."""
    decoder = _FLAT.get(tensor.datatype)
    if decoder is None:
        raise bad("tensor-type", f"`{tensor.name[:60]}` has the unknown datatype `{tensor.datatype[:20]}`")
    raw = bytes(tensor.data)
    if not raw:
        if "binary_data_size" in tensor.parameters:
            raise _binary()
        raise bad("tensor-shape", f"`{tensor.name[:60]}` has no data")
    size = math.prod(tensor.shape)
    # Commas are counted faster than values are made; a text may hold some of its own.
    least = raw.count(b",") + 1
    if tensor.datatype != "BYTES" and least > max(size, 1):
        raise _uneven(tensor, least)
    nested = raw[1:].lstrip()[:1] == b"["
    try:
        if nested:
            items = [item for row in _NESTED[tensor.datatype].decode(raw) for item in row]
        else:
            items = decoder.decode(raw)
    except UNREADABLE as error:
        if "out of range" in str(error):
            raise bad("value-not-finite", f"`{tensor.name[:60]}` holds too large a number") from None
        raise bad("tensor-type", f"`{tensor.name[:60]}` holds something else than {tensor.datatype}") from None
    if len(items) != size:
        raise _uneven(tensor, len(items))
    return items


def _uneven(tensor: _Tensor, count: int) -> HttpError:
    return bad("tensor-shape", f"`{tensor.name[:60]}` has the shape {_shown(tensor.shape)} and {count} values")


def _binary() -> HttpError:
    return bad("tensor-binary", "tensors have to come as JSON; set `binary_data=False` on each input")


def _shape_of(body: bytes) -> HttpError:
    """Say why a body is no inference request."""
    try:
        data = decode(body)
    except HttpError as error:
        return error
    try:
        msgspec.convert(data, _Request)
    except msgspec.ValidationError as error:
        return bad("body-shape", f"this is no inference request: {error}")
    return bad("body-shape", "this is no inference request")
