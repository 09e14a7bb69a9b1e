"""Inference over gRPC: messages to tensors, and answers to messages.

Values come as bytes (`raw_input_contents`) or in a field for their type (`contents`), and go back in the same way. Most
of an answer is the same from call to call, and a message may be written in parts: what differs is put behind bytes
that are remembered.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from modelyard.serving.errors import bad, check_id, killed
from modelyard.serving.grpc.messages import message, read
from modelyard.serving.protocols.binary import FIXED
from modelyard.serving.protocols.oip import blob_of, check_output, said_of, supported, version_of
from modelyard.serving.protocols.tensors import Tensor, parse_tensors
from modelyard.serving.sifting import seconds_of

if TYPE_CHECKING:
    from modelyard.serving.models import Models
    from modelyard.serving.service import Asked, Service

__all__ = ["infer", "wrap"]

# Datatype -> the field that holds its values, and how one of them is packed; FP16 comes as bytes only.
_FIELDS = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    "BYTES": ("bytes_contents", ""),
}
# Tags of the fields of an answer that differ from call to call: `id` and `raw_output_contents`.
_ID, _RAW = b"\x1a", b"\x32"
_SHORT = 0x80


def infer(models: Models, call: Any) -> None:
    """Answer one inference request; an id in its message is the id of the request.

    Raises:
        HttpError: The request does not fit the signature, or nobody may be answered now.
    """
    request = read("ModelInferRequest", call.body)
    name, version = request.model_name, request.model_version
    service = call.link.answers.enter(call, name).find(name, version)
    call.head.model, call.head.version = name, version
    if service.killed:
        raise killed()
    if given := request.id:
        call.id = check_id(given)
    raw = request.raw_input_contents
    wanted = _wanted(service, call.role, request.outputs) if request.outputs else ()
    parsed = parse_tensors(service.validator.columns, _tensors(request.inputs, raw))
    timeout = _timeout(request.parameters) if request.parameters else 0.0
    service.ask(call, parsed, lambda service, asked: _answer(service, asked, wanted, typed=not raw), timeout)


def wrap(answer: bytes, error: str, request_id: str) -> bytes:
    """Return the message of a stream that holds an answer, or says what was wrong with a request."""
    if answer:
        return b"\x12%s%s" % (_varint(len(answer)), answer)
    made: bytes = message("ModelStreamInferResponse")(
        error_message=error, infer_response={"id": request_id}
    ).SerializeToString()
    return made


def _timeout(parameters: Any) -> float:
    """Return the seconds that the parameter `timeout` gives; 0: there is no limit."""
    if "timeout" not in parameters:
        return 0.0
    given = parameters["timeout"]
    return seconds_of(getattr(given, given.WhichOneof("parameter_choice") or "bool_param"))


def _tensors(inputs: Any, raw: Any) -> list[Tensor]:
    """Return the tensors of a request with their values."""
    if raw and len(raw) != len(inputs):
        raise bad("tensor-binary", f"{len(inputs)} tensors have {len(raw)} parts of `raw_input_contents`")
    tensors = []
    for at, one in enumerate(inputs):
        name, datatype, shape = one.name, one.datatype, list(one.shape)
        if one.parameters:
            supported(name, one.parameters)
        if not raw:
            blob = _packed(one, name, datatype, shape)
        elif one.HasField("contents"):
            raise bad("tensor-binary", f"`{name[:60]}` has its values twice: in `contents` and as bytes")
        else:
            blob = raw[at]
        tensors.append(Tensor(name, shape, datatype, b"", memoryview(blob)))
    return tensors


def _packed(one: Any, name: str, datatype: str, shape: list[int]) -> bytes:
    """Return the values of `contents` as bytes."""
    if datatype not in _FIELDS:
        alone = f"is {datatype}, which comes as bytes alone, in `raw_input_contents`"
        what = alone if datatype in FIXED else f"has the datatype `{datatype[:20]}`"
        raise bad("tensor-type", f"`{name[:60]}` {what}")
    field, code = _FIELDS[datatype]
    for other, _ in one.contents.ListFields():
        if other.name != field:
            raise bad("tensor-type", f"`{name[:60]}` is {datatype}, which comes in `{field}`, not in `{other.name}`")
    values = getattr(one.contents, field)
    if len(values) != math.prod(shape):
        raise bad("tensor-shape", f"`{name[:60]}` has {len(values):,} values, which is not its shape")
    if datatype == "BYTES":
        return b"".join([len(text).to_bytes(4, "little") + text for text in values])
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except struct.error:
        raise bad("tensor-type", f"`{name[:60]}` holds a number that {datatype} does not") from None


def _wanted(service: Service, role: str, outputs: Any) -> tuple[str, ...]:
    """Return the names of the outputs that are asked for."""
    for one in outputs:
        check_output(service, role, one.name, one.parameters)
    return tuple(one.name for one in outputs)


def _answer(service: Service, asked: Asked, wanted: tuple[str, ...], *, typed: bool) -> bytes:
    """Return the message of an answer; what makes it goes into the headers, too."""
    call: Any = asked.exchange
    version = version_of(service)
    call.by = version
    given = call.id.encode("latin-1")
    shown = tuple(_shown(service.problem.task == "regression", wanted, asked.hidden))
    same = _same(service.endpoint, version, len(service.problem.classes), asked.parsed.count, shown)
    parts = [same, _ID, _varint(len(given)), given]
    if (asked.shaped or asked.parsed.warnings) and (said := said_of(asked)):
        parts.append(_said(said))
    if typed:
        parts = [_typed(service, asked, b"".join(parts), shown)]
    else:
        for name in shown:
            blob = blob_of(service, asked, name)
            parts += (_RAW, _varint(len(blob)), blob)
    return b"".join(parts)


def _shown(regression: bool, wanted: tuple[str, ...], hidden: frozenset[str]) -> list[str]:
    known = ("prediction",) if regression else ("probabilities", "label")
    if not wanted and not hidden:
        return list(known)
    return [name for name in known if name not in hidden and (name in wanted or not wanted)]


@lru_cache(512)
def _same(endpoint: str, version: str, classes: int, count: int, shown: tuple[str, ...]) -> bytes:
    """Return what answers of so many rows have in common."""
    made = message("ModelInferResponse")(model_name=endpoint, model_version=version)
    for name in shown:
        shape = [count, classes] if name == "probabilities" else [count]
        made.outputs.add(name=name, datatype="BYTES" if name == "label" else "FP32", shape=shape)
    data: bytes = made.SerializeToString()
    return data


def _typed(service: Service, asked: Asked, same: bytes, shown: tuple[str, ...]) -> bytes:
    """Return an answer with its values in fields for their type."""
    made = message("ModelInferResponse").FromString(same)
    for output in made.outputs:
        if output.name == "label":
            classes = service.problem.classes
            picks = asked.picks(service.labels)
            output.contents.bytes_contents.extend([classes[at].encode() for at in picks])
        else:
            output.contents.fp32_contents.extend([value for row in asked.rows for value in row])
    data: bytes = made.SerializeToString()
    return data


def _said(said: dict[str, Any]) -> bytes:
    """Return the parameters of an answer; of several texts they hold one."""
    made = message("ModelInferResponse")()
    for name, text in said.items():
        made.parameters[name].string_param = text if isinstance(text, str) else "; ".join(text)
    data: bytes = made.SerializeToString()
    return data


def _varint(size: int) -> bytes:
    """Return a number as protobuf writes it: seven bits a byte, the lowest first."""
    if size < _SHORT:
        return b"%c" % size
    parts = []
    while size >= _SHORT:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*parts, size))
