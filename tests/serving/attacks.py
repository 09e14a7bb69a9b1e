"""What an attacker sends to the protocols of the HTTP port: by a seed and a number, so that each can be sent again."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from .streams import ODD, chunked, stream  # noqa: TID252 - the suite is not installed, so there is no absolute name

__all__ = ["PROTOCOLS", "attack"]

ROW: dict[str, Any] = {"age": 30, "income": 500.0, "city": "paris"}
INFER = b"/v2/models/credit/infer"
PROTOCOLS = ("predict", "infer", "binary", "invocations", "csv", "arrow", "feedback", "paths", "framing")
# Texts that stand for a value as they are; JSON knows only some of them.
VALUES = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e308", b"1" + b"0" * 400, b"9" * 30, b"-0", b"1e-999",
    b"01", b"+1", b"0x10", b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"',
    b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"' + b"a" * 5000 + b'"', b"[[[[[[[[30]]]]]]]]", b'{"a":{"b":[]}}', b"1_000",
    b"'x'", b"--1", b"1.", b".5", b'"\x00"', b'"\\x"', b'"\xf0\x9f\x92\xa5"', b"18446744073709551616",
    b"9223372036854775808", b'"1e5"', b"", b"/*x*/1",
)  # fmt: skip
SIZES = (0, 1, -1, 7, 8, 9, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30, "8", None, 8.0, True, [8])
SHAPES = (
    [1, 2],
    [2, 1],
    [0, 2],
    [-1, 2],
    [1, 2, 1],
    [],
    [2**62, 2],
    [2**63, 2],
    [10**30, 2],
    [1, 10**400],
    [100_001, 2],
    "x",
)
NAMES = (
    b"..", b"%2e%2e", b"%2e%2e%2fetc%2fpasswd", b"../../etc/passwd", b"%00", b"credit%00", b"credit;", b"/",
    b"credit/", b"cr\xc3\xa9dit", b"a" * 5000, b"%", b"%zz", b"credit?x=%0d%0ax:y", b"*", b"{model}", b"credit#x",
    b"..%5c..%5c", b"\\..\\..", b"~root", b"$(id)", b"' or 1=1--",
)  # fmt: skip


def request(path: bytes, body: bytes, token: bytes, *headers: bytes, method: bytes = b"POST") -> bytes:
    """Return a request that is whole, whatever its body says."""
    given = b"".join(b"%s\r\n" % one for one in headers)
    auth = b"authorization: Bearer %s\r\n" % token if token else b""
    head = b"%s %s HTTP/1.1\r\nhost: x\r\n%s%scontent-length: %d\r\n\r\n"
    return head % (method, path, auth, given, len(body)) + body


def broken(rng: Random, text: bytes) -> bytes:
    """Return JSON with something in it that should not be there."""
    kind = rng.randrange(9)
    if kind == 0:
        values = [at for at in range(len(text)) if text[at : at + 1].isdigit() or text.startswith(b'"paris"', at)]
        at = rng.choice(values) if values else 0
        return text[:at] + rng.choice(VALUES) + text[at + 1 :].lstrip(b'0123456789.paris"')
    if kind == 1:
        return text[: rng.randrange(len(text) + 1)]
    if kind == 2:
        at = rng.randrange(len(text))
        return text[:at] + rng.randbytes(rng.choice((1, 1, 3, 20))) + text[at + rng.randrange(3) :]
    if kind == 3:
        depth = rng.choice((10, 500, 1500, 20_000))
        inner = rng.choice((b"[", b'{"a":', b'{"rows":[', b'{"inputs":['))
        return rng.choice((inner * depth, text[:-1] + b',"x":' + inner * depth))
    if kind == 4:
        return text[:-1] + b"," + text[1:]
    if kind == 5:
        return rng.choice(VALUES)
    if kind == 6:
        return text.replace(b'"', rng.choice((b"'", b'"\\ud800', b'"\xff', b"", b'""')), rng.choice((1, 2, -1)))
    if kind == 7:
        return rng.randbytes(rng.randrange(200))
    return (
        rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b" " * 100, b""))
        + text
        + rng.choice((b"", b"}", b"\x00", text))
    )


def _twice(data: bytes) -> bytes:
    return gzip.compress(gzip.compress(data))


@cache
def bomb(squeeze: Callable[[bytes], bytes], size: int) -> bytes:
    """Return few bytes that unpack to many."""
    return squeeze(bytes(size))


def packed(rng: Random, body: bytes) -> tuple[bytes, bytes]:
    """Return a body and the header that says how it is compressed: now and then a lie, or far too much."""
    squeeze = rng.choice((gzip.compress, zlib.compress, _twice))
    made = bomb(squeeze, rng.choice((100_000, 1_000_000, 30_000_000))) if rng.random() < 0.02 else squeeze(body)
    if rng.random() < 0.3:
        made = rng.choice((made[:-5], made + b"x", made * 3, made[:10] + rng.randbytes(20), gzip.compress(b"") * 600))
    name = rng.choice((b"gzip", b"deflate", b"x-gzip", b"br", b"gzip, gzip", b"identity", b"GZIP", b"", b"\xff"))
    return made, b"content-encoding: " + name


def predict(rng: Random) -> bytes:
    rows = [dict(ROW) for _ in range(rng.choice((1, 1, 2, 30)))]
    columns = {name: [row[name] for row in rows] for name in ROW}
    return broken(rng, json.dumps(rng.choice((ROW, {"rows": rows}, {"columns": columns}))).encode())


def tensors(rng: Random) -> dict[str, Any]:
    numeric: dict[str, Any] = {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [30, 500.0]}
    city: dict[str, Any] = {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["paris"]}
    one = rng.choice((numeric, city))
    field = rng.choice(("shape", "datatype", "data", "name", "parameters", "", ""))
    if field == "shape":
        one["shape"] = rng.choice(SHAPES)
    elif field == "datatype":
        one["datatype"] = rng.choice(("INT64", "BYTES", "FP16", "BOOL", "fp32", "", "FP32" * 100, 5, None))
    elif field == "data":
        one["data"] = rng.choice(
            ([], [[30, 500]], [[[30]], 500], [1] * 1000, ["a"], [None, None], "ab", 5, {"a": 1}, [1e300, 1])
        )
    elif field == "name":
        one["name"] = rng.choice(("city", "age", "x" * 3000, "", "numeric", "\ud800", 5))
    elif field == "parameters":
        one["parameters"] = rng.choice(
            ({"binary_data_size": rng.choice(SIZES)}, {"classification": 1}, [], {"shared_memory_region": "/x"})
        )
    whole: dict[str, Any] = {"inputs": [numeric, city]}
    if rng.random() < 0.2:
        whole["id"] = rng.choice(("a b", "\r\nx: y", "x" * 500, 5, "ok"))
    if rng.random() < 0.2:
        whole["outputs"] = rng.choice(([{"name": "x"}], [{"name": "label", "parameters": {"binary_data": 1}}], 5, [[]]))
    return whole


def infer(rng: Random) -> bytes:
    text = json.dumps(tensors(rng)).encode()
    return broken(rng, text) if rng.random() < 0.5 else text


def binary(rng: Random, token: bytes) -> bytes:
    """Return a request with tensors as bytes: one part of it is wrong, or most parts are."""
    blobs = struct.pack("<2f", 30, 500), struct.pack("<I", 5) + b"paris"
    part = rng.choice(("shape", "datatype", "size", "rest", "length", "all"))

    def spoilt(name: str, right: Any, wrong: tuple[Any, ...] | list[Any]) -> Any:
        return rng.choice(wrong) if part in (name, "all") and rng.random() < 0.9 else right

    inputs = [
        {
            "name": "numeric",
            "shape": spoilt("shape", [1, 2], SHAPES),
            "datatype": spoilt("datatype", "FP32", ("FP64", "BOOL", "INT8", "BYTES", "INT64", "", 5)),
        },
        {"name": "categorical", "shape": [1, 1], "datatype": "BYTES"},
    ]
    for one, blob in zip(inputs, blobs, strict=True):
        one["parameters"] = {"binary_data_size": spoilt("size", len(blob), SIZES)}
    rest = spoilt("rest", b"".join(blobs), (
        blobs[0], blobs[1], b"", b"".join(blobs) + b"x", blobs[0] + b"\xff\xff\xff\xff" + b"paris",
        blobs[0] + struct.pack("<I", 2**31) + b"paris", struct.pack("<2f", float("nan"), float("inf")) + blobs[1],
        blobs[0] + struct.pack("<I", 5) + b"\xff" * 5, rng.randbytes(17),
    ))  # fmt: skip
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": rng.choice((True, 1, None))}}).encode()
    length = spoilt("length", len(text), (len(text) + 1, 0, -1, 2**31, 2**64, 10**20, "x", "", "1, 2", "٣"))
    return request(INFER, text + rest, token, f"inference-header-content-length: {length}".encode())


def invocations(rng: Random) -> bytes:
    split = {"columns": list(ROW), "data": [list(ROW.values())]}
    held = rng.choice(({"dataframe_split": split}, {"dataframe_records": [ROW]}, {"instances": [ROW]}, {"inputs": ROW},
                       {"instances": [[30, "paris", 500]]}, {"inputs": 5, "params": {"a": 1}},
                       {"dataframe_split": {"data": [[]]}},
                       {"dataframe_split": {**split, "columns": ["age"] * 3}}, {"instances": [[], {}]}))  # fmt: skip
    return broken(rng, json.dumps(held).encode())


def table(rng: Random) -> bytes:
    line = rng.choice(
        (
            b"age,city,income",
            b"age,age,city",
            b"",
            b'"age',
            b"age;city;income",
            b"\x00",
            b"age,city,income,x",
            b"\xef\xbb\xbfage,city,income",
        )
    )
    cell = rng.choice((*VALUES, b"30", b"=1+1", b'"a"b"', b'"', b"nan", b"inf", b"a" * 140_000))
    rows = rng.choice((1, 2, 50)) if len(cell) < 1000 else 1
    return (
        line
        + rng.choice((b"\r\n", b"\n", b"\r"))
        + (b"%s,paris,5\n" % cell) * rows
        + rng.choice((b"", b"1,2", b",,,,,,\n", b'"'))
    )


@cache
def streams() -> list[bytes]:
    """Return Arrow IPC streams that are whole: plain and compressed, of one batch and several, with odd columns."""
    import polars as pl

    frame = pl.DataFrame({"age": [30, 40], "income": [500.0, None], "city": ["paris", "rome"]})
    frames = [
        frame, frame.clear(), pl.concat([frame] * 3, rechunk=False),
        frame.with_columns(pl.col("city").cast(pl.Categorical)),
        frame.with_columns(pl.col("age").cast(pl.Int8)), frame.with_columns(age=pl.lit("30")),
        frame.with_columns(age=pl.Series([[1], [2]])), frame.with_columns(age=pl.struct("age")), frame.drop("city"),
        frame.with_columns(city=pl.Series([b"paris", b"\xff"])), frame.with_columns(age=pl.lit(None)),
    ]  # fmt: skip
    made = []
    for one in frames:
        for compression in ("uncompressed", "lz4", "zstd"):
            out = io.BytesIO()
            one.write_ipc_stream(out, compression=compression)
            made.append(out.getvalue())
    return made


def arrow(rng: Random) -> bytes:
    text = rng.choice(streams())
    for _ in range(rng.choice((0, 1, 1, 2, 5, 20))):
        at = rng.randrange(len(text))
        size = struct.pack("<i", rng.choice((-1, 2**31 - 1, 8, 64)))
        odd = rng.choice((rng.randbytes(1), rng.randbytes(1), b"\xff" * 4, b"\x00" * 4, b"\xff" * 8, size))
        text = text[:at] + odd + text[at + len(odd) :]
    kind = rng.random()
    if kind < 0.1:
        return text[: rng.randrange(len(text))]
    if kind < 0.2:
        return text + rng.choice((text, rng.randbytes(20), b"\x00" * 8))
    return text


def feedback(rng: Random) -> bytes:
    truth = rng.choice((*VALUES, b'"yes"', b"5"))
    name = rng.choice(
        (
            b'"nobody"',
            b'"nobody"',
            b'""',
            b'"' + b"x" * 300 + b'"',
            b"5",
            b'"\\ud800"',
            b'"\\u0000"',
            b'"a\'; drop table x;--"',
        )
    )
    one = b'{"id":%s,"truth":%s}' % (name, truth)
    return rng.choice((one, one, b"[%s]" % one, b"[%s]" % b",".join([one] * 50), b"[]", broken(rng, one)))


def path(rng: Random, token: bytes) -> bytes:
    kind, name = rng.randrange(5), rng.choice(NAMES)
    method = rng.choice(
        (b"GET", b"POST", b"PUT", b"DELETE", b"TRACE", b"OPTIONS", b"HEAD", b"PATCH", b"PROPFIND", b"M-SEARCH")
    )
    whole = rng.choice(
        (
            b"/v2/models/%s/infer",
            b"/v2/models/%s",
            b"/v2/models/credit/versions/%s",
            b"/%s",
            b"/v2/repository/models/%s/load",
        )
    )
    target = whole % name
    if kind == 0:
        target = rng.choice(
            (
                b"http://x/v2",
                b"http://x:99999/predict",
                b"//x/predict",
                b"http://[::1",
                b"https://a@b/",
                b"file:///etc/passwd",
                b"predict",
            )
        )
    headers: tuple[bytes, ...] = ()
    if kind == 1:
        target = rng.choice((b"/predict", b"/nowhere", b"/v2"))
        headers = (
            b"x-request-id: "
            + rng.choice((b"a\tb", b"a b", b"x" * 200, b"\xff", b"a,b", b"${jndi:ldap://x}", b"<script>")),
        )
    if kind == 2:
        headers = (rng.choice((b"accept-encoding: gzip;q=x", b"origin: null", b"content-type: \xff",
                               b"content-type: text/csv; charset=utf-16", b"cookie: " + b"a" * 3000,
                               b"x-forwarded-for: 127.0.0.1", b"traceparent: 00-zz", b"host: evil")),)  # fmt: skip
    return request(target, b"" if rng.random() < 0.7 else b"{}", token, *headers, method=method)


def framing(rng: Random, token: bytes) -> bytes:
    """Requests in requests: two lengths, chunks that are none, headers that are read in two ways."""
    kind = rng.randrange(6)
    inside = b"POST /v2/repository/models/credit/unload HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    auth = b"authorization: Bearer " + token
    if kind == 0:
        return b"".join(stream(rng, [], 0.8))
    if kind == 1:
        lines = [b"POST /predict HTTP/1.1", b"host: x", auth, *rng.sample(ODD, rng.choice((1, 2, 3)))]
        return b"\r\n".join(lines) + b"\r\ncontent-length: %d\r\n\r\n" % len(inside) + inside
    if kind == 2:
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\n%s\r\n%s\r\ntransfer-encoding: chunked\r\n\r\n" % (
            auth,
            rng.choice(ODD),
        )
        return head + chunked(rng, json.dumps(ROW).encode(), 0.9) + inside
    if kind == 3:
        size = rng.choice((2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**40, 9_999_999))
        return b"POST /predict HTTP/1.1\r\nhost: x\r\n%s\r\ncontent-length: %d\r\n\r\n{" % (auth, size)
    if kind == 4:
        count = rng.choice((10, 50, 200, 200, 5_000))
        many = b"".join(
            b"x%d: %s\r\n" % (at % rng.choice((1, count)), b"y" * rng.choice((1, 30))) for at in range(count)
        )
        return b"GET /v2 HTTP/1.1\r\n%s\r\n%s\r\n" % (auth, many)
    whole = request(b"/predict", json.dumps(ROW).encode(), token)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(whole))
        whole = whole[:at] + rng.randbytes(rng.choice((0, 1, 1, 2))) + whole[at + rng.choice((0, 1, 1, 9)) :]
    return whole


BODIES: dict[str, tuple[bytes, Callable[[Random], bytes], bytes]] = {
    "predict": (b"/predict", predict, b"application/json"),
    "infer": (INFER, infer, b"application/json"),
    "invocations": (b"/invocations", invocations, b"application/json"),
    "csv": (b"/invocations", table, b"text/csv"),
    "arrow": (b"/predict", arrow, b"application/vnd.apache.arrow.stream"),
    "feedback": (b"/feedback", feedback, b"application/json"),
}


def attack(protocol: str, rng: Random, token: bytes) -> bytes:
    """Return what is sent over one connection."""
    given = token if rng.random() < 0.9 else rng.choice((b"", b"yard_00000000_no", b"x" * 3000))
    if protocol == "framing":
        return framing(rng, given)
    parts = []
    for _ in range(rng.randint(4, 12)):
        if protocol == "binary":
            parts.append(binary(rng, token))
        elif protocol == "paths":
            parts.append(path(rng, token))
        else:
            where, make, kind = BODIES[protocol]
            body, headers = make(rng), [b"content-type: " + kind]
            if rng.random() < 0.1:
                body, encoding = packed(rng, body)
                headers.append(encoding)
            parts.append(request(where, body, token, *headers))
    if rng.random() < 0.1:
        parts[-1] = parts[-1][: rng.randrange(len(parts[-1]))]
    return b"".join(parts)
