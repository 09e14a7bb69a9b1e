"""The Open Inference Protocol, version 2, over REST: metadata and inference, with tensors as JSON or as bytes.

The answer is `probabilities` and `label`, or `prediction`; as bytes where the caller asks for that.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import short
from modelyard.serving.asked import noted
from modelyard.serving.errors import HttpError, bad, check_id, named
from modelyard.serving.http.exchange import Exchange
from modelyard.serving.models import Models
from modelyard.serving.protocols.binary import numbers_out, shares, split, texts_out
from modelyard.serving.protocols.lifting import Lifted
from modelyard.serving.protocols.tensors import Tensor, parse_tensors
from modelyard.serving.service import Asked, Body, Service
from modelyard.serving.sifting import seconds_of
from modelyard.serving.values import BOM, UNREADABLE, decode, once

if TYPE_CHECKING:
    from modelyard.serving.batch import Output

__all__ = [
    "EXTENSIONS",
    "blob_of",
    "check_output",
    "infer",
    "model",
    "model_metadata",
    "names_of",
    "outputs_of",
    "said_of",
    "seen_by",
    "server",
    "server_metadata",
    "supported",
    "tensors_of",
    "version_of",
]

# Extensions of the protocol, by the names that its clients know them by.
EXTENSIONS = ("binary_tensor_data",)
_LENGTH = b"inference-header-content-length"
_OCTETS = b"application/octet-stream"
# What a caller may ask of a tensor that this server does not do; silence would be taken for a yes.
_UNSUPPORTED = ("shared_memory_region", "classification")
# Bytes of a request beside the values of its tensors, if they have to be looked through: a thousand tensors have half.
_BESIDE, _SHORT = 256_000, 100
_encode = msgspec.json.Encoder().encode


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


class _Given(_Tensor, gc=False):
    # Not as bytes: what was decoded has none.
    data: Any = None


class _Asked(_Request):
    inputs: list[_Given]  # type: ignore[assignment]


_decode_request = msgspec.json.Decoder(_Request).decode


def server_metadata() -> bytes:
    """Return the JSON of `GET /v2`; the version is that of the protocol."""
    return _encode(server())


def server() -> dict[str, Any]:
    """Return what there is to say of the server, as plain data."""
    return {"name": "modelyard", "version": "2", "extensions": EXTENSIONS}


def version_of(service: Service) -> str:
    """Return the name of the model's version: the first digits of its digest."""
    return short(service.version.digest)


def model_metadata(service: Service, role: str) -> bytes:
    """Return the JSON of `GET /v2/models/NAME` for a caller of a role."""
    return _encode(model(service, role))


def model(service: Service, role: str) -> dict[str, Any]:
    """Return what there is to say of a model to a caller of a role, as plain data."""
    return {
        "name": service.endpoint,
        "versions": [version_of(service)],
        "platform": service.version.format,
        "inputs": tensors_of(service),
        "outputs": seen_by(service, role),
        "parameters": names_of(service),
    }


def names_of(service: Service) -> dict[str, list[str]]:
    """Return the columns of each tensor and the classes of the answer, in order: a tensor holds no names."""
    return {
        "numeric": [f.name for f in service.validator.numbers],
        "categorical": [f.name for f in service.validator.categories],
        "classes": list(service.problem.classes),
    }


def tensors_of(service: Service) -> list[dict[str, Any]]:
    """Return name, datatype and shape of the tensors that the model takes; -1 stands for any number of rows."""
    validator = service.validator
    inputs: list[dict[str, Any]] = []
    if validator.numbers:
        inputs.append({"name": "numeric", "datatype": "FP32", "shape": [-1, len(validator.numbers)]})
    if validator.categories:
        inputs.append({"name": "categorical", "datatype": "BYTES", "shape": [-1, len(validator.categories)]})
    return inputs


def outputs_of(service: Service) -> list[dict[str, Any]]:
    """Return name, datatype and shape of the tensors of an answer."""
    if service.problem.task == "regression":
        return [{"name": "prediction", "datatype": "FP32", "shape": [-1]}]
    return [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(service.problem.classes)]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]


def seen_by(service: Service, role: str) -> list[dict[str, Any]]:
    """Return the tensors of an answer that a caller of a role sees."""
    labels_only = service.limits.policy.access.show.get(role) == "label"
    return [one for one in outputs_of(service) if not labels_only or one["name"] != "probabilities"]


def infer(models: Models, exchange: Exchange) -> None:
    """Answer one inference request; an id in its body is the id of the request.

    Raises:
        HttpError: The request does not fit the signature.
    """
    service = models.find(exchange.model, exchange.version)
    text, rest = split(exchange.body, exchange.header(_LENGTH))
    request, given = _read(service, text)
    if request.id:
        exchange.id = check_id(request.id)
    wanted = _wanted(service, request, exchange.role)
    parsed = parse_tensors(service.validator.columns, _tensors(request.inputs, given, rest))
    timeout = seconds_of(request.parameters["timeout"]) if "timeout" in request.parameters else 0.0
    service.ask(exchange, parsed, lambda service, asked: _answer(service, asked, wanted), timeout)


def _read(service: Service, text: bytes) -> tuple[_Request, list[Tensor]]:
    """Return a request, and its tensors without their bytes.

    Raises:
        HttpError: It is none (`body-not-json`, `body-shape`, `value-not-finite`), or has a name twice (`name-twice`).
    """
    if (lifted := service.validator.lift(text)) is not None:
        # What is wrong is found in the whole of it.
        with suppress(*UNREADABLE):
            request = _decode_request(lifted.less)
            if not _may_be_twice(lifted.less, request):
                return request, [_tensor(one, lifted) for one in request.inputs]
    try:
        request = _decode_request(text)
    except UNREADABLE:
        text = text.removeprefix(BOM)
        try:
            request = _decode_request(text)
        except UNREADABLE:
            raise _shape_of(text) from None
    if _may_be_twice(text, request):
        _check_once(text, request)
    return request, [_tensor(one) for one in request.inputs]


def _tensor(one: _Tensor, lifted: Lifted | None = None) -> Tensor:
    data, read = (bytes(one.data), None) if lifted is None else lifted.stands_for(bytes(one.data))
    return Tensor(one.name, one.shape, one.datatype, data, read=read)


def _may_be_twice(text: bytes, request: _Request) -> bool:
    """Say whether there may be a name twice in one object; the values of tensors are not looked through."""
    parts: list[_Tensor | _Wanted] = [*request.inputs, *request.outputs]
    given = [request.parameters, *(one.parameters for one in parts)]
    inside = sum([len(parameters) + 1 for parameters in given if parameters])
    values = _values(request)
    names = 1 + bool(request.id) + bool(request.outputs) + 3 * len(request.inputs) + len(request.outputs) + inside
    return text.count(b":") > names + len(values) + sum([one.count(b":") for one in values])


def _check_once(text: bytes, request: _Request) -> None:
    """Refuse a request with a name twice in one object; the values of its tensors are not looked through."""
    for one in _values(request):
        # A short one may stand in a name by chance.
        text = text.replace(one, b"0", 1) if len(one) > _SHORT else text
    if len(text) > _BESIDE:
        raise bad("body-shape", f"there are more than {_BESIDE:,} bytes beside the values of the tensors")
    once(text, 0)


def _values(request: _Request) -> list[bytes]:
    return [bytes(one.data) for one in request.inputs if one.data]


def _tensors(inputs: list[_Tensor], tensors: list[Tensor], rest: memoryview) -> list[Tensor]:
    """Return the tensors of a request with their values, as JSON or as bytes."""
    sizes = []
    for one in inputs:
        if one.parameters:
            supported(one.name, one.parameters)
            if "binary_data_size" in one.parameters:
                if one.data:
                    raise bad("tensor-binary", f"`{one.name[:60]}` has its values twice: as JSON and as bytes")
                sizes.append((one.name, one.parameters["binary_data_size"]))
    if not sizes and not rest:
        return tensors
    blobs = shares(sizes, rest)
    for tensor in tensors:
        tensor.blob = blobs.get(tensor.name) if not tensor.data else None
    return tensors


def _wanted(service: Service, request: _Request, role: str) -> dict[str, bool]:
    """Return the outputs that are asked for, and of each whether as bytes."""
    binary = request.parameters.get("binary_data_output", False) is True
    wanted = {}
    for output in request.outputs:
        check_output(service, role, output.name, output.parameters)
        wanted[output.name] = output.parameters.get("binary_data", binary) is True
    return wanted or dict.fromkeys([one["name"] for one in outputs_of(service)], binary)


def check_output(service: Service, role: str, name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse an output that the model does not have, or not for this role or in the way that it is asked for.

    Raises:
        HttpError: It is such an output (`tensor-unknown`, `role-denied`, `not-supported`).
    """
    known = [one["name"] for one in seen_by(service, role)]
    if name not in known:
        if any(one["name"] == name for one in outputs_of(service)):
            raise HttpError(403, "role-denied", f"the role `{role}` does not see `{name}` here")
        raise named("tensor-unknown", f"the model has no output `{name[:60]}`", name, known)
    supported(name, parameters)


def supported(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what a caller asks of a tensor and this server does not do.

    Raises:
        HttpError: It asks for such a thing (`not-supported`).
    """
    for one in _UNSUPPORTED:
        if one in parameters and parameters[one]:  # noqa: RUF019 - `get` of a message's map would make an entry
            raise bad("not-supported", f"`{one}` of `{name[:60]}` is not supported here")


def _answer(service: Service, asked: Asked, wanted: dict[str, bool]) -> bytes | Body:
    count = asked.parsed.count
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for tensor in outputs_of(service):
        name = tensor["name"]
        if name not in wanted or name in asked.hidden:
            continue
        tensor["shape"][0] = count
        if wanted[name]:
            blob = blob_of(service, asked, name)
            blobs.append(blob)
            tensor["parameters"] = {"binary_data_size": len(blob)}
        elif name == "label":
            classes = service.problem.classes
            tensor["data"] = list(map(classes.__getitem__, asked.picks(service.labels)))
        else:
            tensor["data"] = _flat(asked.output)
        outputs.append(tensor)
    body: dict[str, Any] = {
        "model_name": service.endpoint,
        "model_version": version_of(service),
        "id": asked.exchange.id,
        "outputs": outputs,
    }
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if asked.shaped or asked.parsed.warnings:
        if said := said_of(asked):
            body["parameters"] = said
        headers = noted(asked)
    text = _encode(body)
    if blobs:
        return Body(b"".join((text, *blobs)), ((_LENGTH, b"%d" % len(text)), *headers), _OCTETS)
    return Body(text, headers) if headers else text


def said_of(asked: Asked) -> dict[str, Any]:
    """Return what the parameters of an answer say of its rows: warnings, and which are held back and by what guard.

    A tensor holds the fallback as it holds an answer. The second is a text of JSON, guard -> rows: the protocol has
    texts, numbers and truth values for parameters.
    """
    said: dict[str, Any] = {}
    if asked.parsed.warnings:
        said["warnings"] = [one["message"] for one in asked.parsed.warnings]
    if withheld := asked.withheld:
        said["withheld"] = _encode(withheld).decode()
    return said


def _flat(output: Output) -> list[float]:
    return list(chain.from_iterable(output)) if isinstance(output, list) else output.ravel().tolist()


def blob_of(service: Service, asked: Asked, name: str) -> bytes:
    """Return the values of an output as bytes."""
    if name == "label":
        return texts_out(service.problem.classes, asked.picks(service.labels))
    output = asked.output
    if isinstance(output, list) and len(output) == 1:
        row = output[0]
        return struct.pack(f"<{len(row)}f", *row)
    return numbers_out(output)


def _shape_of(body: bytes) -> HttpError:
    """Say why a body is no inference request."""
    try:
        data = decode(body)
    except HttpError as error:
        return error
    try:
        msgspec.convert(data, _Asked)
    except msgspec.ValidationError as error:
        return bad("body-shape", f"this is no inference request: {error}")
    return bad("body-shape", "this is no inference request")
