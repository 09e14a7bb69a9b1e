"""What an attacker sends to the port for gRPC: calls that leave the connection be, and bytes that end it."""

from __future__ import annotations

import gzip
import struct
import zlib
from functools import cache
from random import Random
from typing import Any

from modelyard.serving.grpc.frames import Kind, frame, settings, window_update
from modelyard.serving.grpc.messages import message
from modelyard.serving.grpc.status import literal

__all__ = ["INFER", "last", "wrong"]

INFER = "/inference.GRPCInferenceService/ModelInfer"
METHODS = ("ModelInfer", "ModelStreamInfer", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex",
           "RepositoryModelLoad", "SystemSharedMemoryRegister", "ServerMetadata", "Nothing")  # fmt: skip
MODELS = (
    "../credit", "..", "%2e%2e", "../../etc/passwd", "credit/", "/credit", "credit\x00", "\x00", "", "x" * 300, "*",
    "x" * 20_000, "credit/versions/1", "~root", "$(id)", "{model}", "crédit", "credit;", "..\\..\\", "' or 1=1--",
)  # fmt: skip
DATATYPES = ("FP32", "BYTES", "INT64", "FP16", "FP64", "BOOL", "UINT8", "BF16", "fp32", "", "X", "FP32" * 100)
SIZES = (-1, 0, 1, 2, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
CONTENTS = {
    "fp32_contents": [float("nan"), float("inf"), -1e38], "fp64_contents": [1e300, float("-inf")],
    "int_contents": [2**31 - 1, -1], "int64_contents": [-(2**63)], "uint64_contents": [2**64 - 1],
    "bool_contents": [True], "bytes_contents": [b"\xff\xfe", b"", b"a" * 5000],
}  # fmt: skip
# Blocks of values: a NaN, a text whose length is a lie (2 GB, 4 GB), one that is no UTF-8, too few bytes.
BLOBS = (
    struct.pack("<2f", float("nan"), float("inf")), struct.pack("<I", 2**31) + b"paris", b"\xff\xff\xff\xffparis",
    struct.pack("<I", 2) + b"\xff\xfe", b"", b"x", struct.pack("<2f", 30, 500), struct.pack("<I", 5) + b"paris",
)  # fmt: skip
HEADERS = (
    {"te": "x"}, {"grpc_timeout": "999999999S"}, {"grpc_timeout": "x"}, {"grpc_encoding": "br"}, {"connection": "x"},
    {"content_type": "text/html"}, {"content_type": "application/grpc+json"}, {"x_request_id": "a\nb"},
    {"x_request_id": "a" * 200}, {"transfer_encoding": "chunked"}, {"content_length": "2147483648"}, {"X": "y"},
    {"authorization": "Basic " + "a" * 3000}, {"x": "y" * 9_000}, {"drop": ":path"}, {"drop": ":method"},
    {"drop": "content-type"}, {"drop": ":scheme"},
)  # fmt: skip


def infer(rng: Random) -> bytes:
    """Return a message for inference, most often a wrong one."""
    request = message("ModelInferRequest")(model_name=rng.choice(("credit",) * 12 + MODELS))
    if rng.random() < 0.1:
        request.model_version = rng.choice(("1", "../1", "0" * 12, "x" * 300))
    for name, width in rng.choice(((("numeric", 2), ("categorical", 1)),) * 4 + ((), (("numeric", 2),) * 3)):
        texts = width == 1
        one = request.inputs.add(name=name, datatype="BYTES" if texts else "FP32", shape=[1, width])
        _spoil(rng, one)
        if rng.random() < 0.8:
            request.raw_input_contents.append(BLOBS[-1 if texts else -2] if rng.random() < 0.6 else rng.choice(BLOBS))
        elif rng.random() < 0.8:
            kind = rng.choice(tuple(CONTENTS))
            getattr(one.contents, kind).extend(CONTENTS[kind])
    if rng.random() < 0.1:
        request.outputs.add(name=rng.choice(("label", "x", "../x"))).parameters["classification"].int64_param = 2
    if rng.random() < 0.2:
        request.id = rng.choice(("mine", "é", "a" * 200, "\n", "${jndi:ldap://x}"))
    if rng.random() < 0.1:
        request.parameters[rng.choice(("timeout", "x", "binary_data_output"))].int64_param = rng.choice(SIZES)
    data: bytes = request.SerializeToString()
    if rng.random() < 0.3:
        at = rng.randrange(len(data) + 1)
        # A field whose length is a lie, among others.
        odd = rng.choice((rng.randbytes(rng.randint(0, 4)), b"\x2a\xff\xff\xff\xff\x07", b"\x0b" * 200))
        data = data[:at] + odd + data[at + rng.randint(0, 3) :]
    return data


def _spoil(rng: Random, one: Any) -> None:
    """Make something of a tensor wrong, now and then."""
    kind = rng.randrange(12)
    if kind == 0:
        one.name = rng.choice(("age", "city", "", "\x00", "x" * 3000, "numeric", "../numeric"))
    elif kind == 1:
        one.datatype = rng.choice(DATATYPES)
    elif kind == 2:
        del one.shape[:]
        one.shape.extend(rng.choice(SIZES) for _ in range(rng.randint(0, 4)))
    elif kind == 3:
        one.parameters[rng.choice(("shared_memory_region", "x"))].string_param = "/etc/passwd"
    elif kind == 4:
        one.parameters["binary_data_size"].int64_param = rng.choice(SIZES)


@cache
def _bomb(size: int) -> bytes:
    return gzip.compress(bytes(size))


def _packed(rng: Random, body: bytes) -> tuple[bytes, str]:
    """Return a message and how it is said to be compressed: now and then a lie, or far too much."""
    made = rng.choice((gzip.compress, zlib.compress))(body)
    if rng.random() < 0.05:
        made = _bomb(rng.choice((1_000_000, 30_000_000)))
    elif rng.random() < 0.4:
        made = rng.choice((made[:-5], made + b"x", made[:10] + rng.randbytes(20), gzip.compress(made), b""))
    return made, rng.choice(("gzip", "gzip", "deflate", "identity", "br", ""))


def wrong(rng: Random, peer: Any, stream: int, *, path: str = "", token: str = "good") -> bytes:  # noqa: S107
    """Return the frames of one call that is most often wrong, and after which the connection may go on.

    Args:
        rng: Decides.
        peer: Who sends; its table of headers is its own.
        stream: Number of the call's stream.
        path: Method; empty: any.
        token: A token that is known.
    """
    path = path or rng.choice((*(f"/inference.GRPCInferenceService/{name}" for name in METHODS), "/../one", "*", "/"))
    kind, body = rng.randrange(16), infer(rng)
    token = token if rng.random() < 0.95 else rng.choice(("no", "", "yard_00000000_no", "x" * 3000))
    if kind < 8:
        return bytes(peer.call(stream, body, path, token=token))
    if kind == 8:
        return bytes(peer.call(stream, body, path, **{"token": token, **rng.choice(HEADERS)}))
    if kind == 9:
        # A length that is a lie: nothing, one, 2 GB, 4 GB; and a flag that is none.
        sized = struct.pack(">BI", rng.choice((0, 1, 2, 255)), rng.choice((0, 1, 2**31, 2**32 - 1))) + body
        return frame(1, 4, stream, peer.head(path, token=token)) + frame(0, 1, stream, sized[:16_000])
    if kind == 10:
        # Headers in two frames, and a message in many.
        block, sized = peer.head(path, token=token), bytes(peer.message(body))
        at, cuts = rng.randrange(len(block)), sorted(rng.randrange(len(sized) + 1) for _ in range(4))
        parts = [sized[a:b] for a, b in zip((0, *cuts), (*cuts, len(sized)), strict=True)]
        head = frame(1, 0, stream, block[:at]) + frame(9, 4, stream, block[at:])
        return head + b"".join(frame(0, number == 4, stream, part) for number, part in enumerate(parts))
    if kind == 11:
        made, encoding = _packed(rng, body)
        head = frame(1, 4, stream, peer.head(path, token=token, grpc_encoding=encoding))
        sized = bytes(peer.message(made, 1))
        return head + b"".join(
            frame(0, at + 16_000 >= len(sized), stream, sized[at : at + 16_000]) for at in range(0, len(sized), 16_000)
        )
    if kind == 12:
        return frame(1, 5, stream, peer.head(path, token=token) + literal(rng.randbytes(3), rng.randbytes(3)))
    if kind == 13:
        # Made and given up at once, with a message or without.
        sent = peer.call(stream, body, path, token=token, flags=rng.choice((0, 1)))
        return bytes(sent) + frame(Kind.RST_STREAM, 0, stream, bytes(4))
    if kind == 14:
        # Two messages where there may be one, or none.
        several = b"".join(bytes(peer.message(one)) for one in rng.choice(((), (body, body), (body, b"", b"x"))))
        return frame(1, 4, stream, peer.head(path, token=token)) + frame(0, 1, stream, several[:16_000])
    return frame(1, 5, stream, peer.head(path, token=token))


def last(rng: Random, peer: Any, stream: int, *, token: str = "good") -> bytes:  # noqa: S107
    """Return bytes after which the connection most often ends."""
    kind = rng.randrange(10)
    block = peer.head(INFER, token=token)
    if kind == 0:
        at = rng.randrange(len(block))
        rest = frame(rng.choice((9, 0, 6)), rng.choice((0, 4)), stream, block[at:])
        return frame(1, 0, stream, block[:at]) + rest
    if kind == 1:
        return frame(1, rng.randrange(256), stream, rng.randbytes(rng.randint(0, 60)))
    if kind == 2:
        other, data = rng.choice((0, 1, stream, 2**31)), rng.randbytes(rng.choice((0, 4, 5, 6, 8)))
        return frame(rng.randrange(12), rng.randrange(256), other, data)
    if kind == 3:
        return settings({rng.randrange(8): rng.choice((0, 1, 16_384, 65_535, 2**31 - 1, 2**32 - 1))})
    if kind == 4:
        return window_update(rng.choice((0, stream, 1)), rng.choice((0, 1, 2**31 - 1)))
    if kind == 5:
        return frame(Kind.RST_STREAM, 0, rng.choice((stream, 1)), bytes(4)) * rng.choice((1, 1, 50, 2000))
    if kind == 6:
        # Headers without an end, of a megabyte.
        return frame(1, 0, stream, block) + frame(9, 0, stream, literal(b"x", b"y" * 9_000)) * 110
    if kind == 7:
        # The same few bytes stand for many: a table of headers as a bomb.
        return frame(1, 5, stream, b"\x40\x01x\x7f\x80\x1e" + b"y" * 3967 + b"\xbe" * 10_000)
    if kind == 8:
        return b"GET /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 2147483648\r\n\r\n"
    return rng.randbytes(rng.randint(1, 40))
