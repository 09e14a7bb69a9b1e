"""Compressed requests and answers, and what pretends to be one."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.serving.errors import HttpError
from modelyard.serving.http.encodings import LARGE, SMALL, accepted, inflate, squeeze

from .conftest import Server  # noqa: TID252 - the suite is not installed

ROW = {"age": 30, "income": 500, "city": "rome"}
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("path", ["/predict", "/v2/models/credit/infer"])
def test_compressed_and_plain_requests_answer_the_same(served: Server, encoding: str, path: str) -> None:
    body = msgspec.json.encode({"rows": [ROW] * 50})
    if path != "/predict":
        columns: dict[str, tuple[str, list[Any]]] = {
            "age": ("FP32", [30.0]),
            "income": ("FP32", [500.0]),
            "city": ("BYTES", ["rome"]),
        }
        tensors = [{"name": n, "datatype": k, "shape": [1], "data": d} for n, (k, d) in columns.items()]
        body = msgspec.json.encode({"inputs": tensors})
    with served.client() as client:
        plain = client.post(path, content=body).json()
        # The second time the head is known already.
        for name in (encoding, encoding, encoding.upper()):
            answer = client.post(path, content=PACK[encoding](body), headers={"content-encoding": name})
            assert answer.status_code == 200, answer.text
            key = "predictions" if path == "/predict" else "outputs"
            assert answer.json()[key] == plain[key]


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("rows", [1, 200, 5000])
def test_answers_are_compressed_where_it_pays(served: Server, encoding: str, rows: int) -> None:
    with served.client() as client:
        asked = {"rows": [ROW] * rows}
        plain = client.post("/predict", json=asked, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        # The head of the second is known by its bytes.
        for _ in range(2):
            squeezed = client.post("/predict", json=asked, headers={"accept-encoding": f"br, {encoding};q=0.5"})
    assert squeezed.json()["predictions"] == plain.json()["predictions"]
    size = len(plain.content)
    assert (size > SMALL, size > LARGE) == (rows > 1, rows > 200)
    assert squeezed.headers.get("content-encoding") == (encoding if size > SMALL else None)
    assert squeezed.headers.get("vary") == ("accept-encoding" if size > SMALL else None)
    assert size <= SMALL or int(squeezed.headers["content-length"]) < size


def test_order_of_pipelined_answers_holds_while_one_is_compressed(served: Server) -> None:
    import socket

    head = f"Authorization: Bearer {served.tokens['analyst']}\r\nHost: x\r\n"
    large = msgspec.json.encode({"rows": [ROW] * 5000}).decode()
    one = f"POST /predict HTTP/1.1\r\n{head}X-Request-Id: large\r\nAccept-Encoding: gzip\r\n"
    one += f"Content-Length: {len(large)}\r\n\r\n{large}"
    two = f"GET /v2 HTTP/1.1\r\n{head}X-Request-Id: small\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall((one + two).encode())
        data = b""
        while part := sock.recv(65536):
            data += part
    assert data.index(b"x-request-id: large") < data.index(b"x-request-id: small")
    assert data.count(b"HTTP/1.1 200 OK") == 2


def packed(body: bytes) -> bytes:
    """Compress by gzip, to the same bytes at any time."""
    return gzip.compress(body, mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        ("br", b"x", 415, "body-encoding"),
        ("zstd", b"x", 415, "body-encoding"),
        ("gzip, gzip", packed(packed(b"{}")), 415, "body-encoding"),
        ("gzip", b"{}", 400, "body-compressed"),
        ("gzip", b"", 400, "body-compressed"),
        ("gzip", zlib.compress(b"{}"), 400, "body-compressed"),
        ("deflate", packed(b"{}"), 400, "body-compressed"),
        ("gzip", packed(b"{}" * 100)[:-9], 400, "body-compressed"),
        ("gzip", packed(b"{}") + b"rest", 400, "body-compressed"),
        ("deflate", zlib.compress(b"{}") + b"rest", 400, "body-compressed"),
        ("gzip", packed(b"{}")[:-1] + b"\xff", 400, "body-compressed"),
        ("gzip", gzip.compress(b" " * 10_000_001, 1, mtime=0), 413, "body-too-large"),
        ("deflate", zlib.compress(b" " * 20_000_000, 1), 413, "body-too-large"),
    ],
)
def test_what_is_not_what_it_says_is_refused(
    served: Server, encoding: str, body: bytes, status: int, code: str
) -> None:
    with served.client() as client:
        answer = client.post("/predict", content=body, headers={"content-encoding": encoding})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_bomb_is_refused_while_it_grows() -> None:
    stream = zlib.compressobj(9)
    bomb = b"".join(stream.compress(bytes(1_000_000)) for _ in range(100)) + stream.flush()
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(HttpError, match="body-too-large"):
        inflate(bomb, b"deflate", 1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_several_gzip_streams_are_one_body_and_count_together() -> None:
    two = gzip.compress(b"ab") + gzip.compress(b"cd")
    assert inflate(two, b"gzip", 4) == b"abcd"
    with pytest.raises(HttpError, match="body-too-large"):
        inflate(two, b"gzip", 3)
    # Each of many empty ones would be work for nothing.
    with pytest.raises(HttpError, match="body-compressed"):
        inflate(gzip.compress(b"") * 100_000, b"gzip", 1000)


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 1_000_000])
def test_whatever_the_size_of_the_pieces(encoding: str, size: int) -> None:
    for body in (bytes(size), np.random.default_rng(1).bytes(size)):
        made = PACK[encoding](body)
        assert inflate(made, encoding.encode(), size) == body
        for cut in (1, 4, 8):
            with pytest.raises(HttpError, match="body-compressed"):
                inflate(made[:-cut], encoding.encode(), size)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (b"gzip", b"gzip"),
        (b"GZip, deflate, br", b"gzip"),
        (b"deflate", b"deflate"),
        (b"gzip; q=0, deflate; q=0.000", b""),
        (b"gzip;q=0.001", b"gzip"),
        (b"", b""),
        (b"*", b""),
        (b"br;;;,,", b""),
    ],
)
def test_accept_encoding(given: bytes, taken: bytes) -> None:
    assert accepted(given) == taken
    if taken:
        assert inflate(squeeze(b"x" * 9999, taken), taken, 9999) == b"x" * 9999


def test_triton_client_compresses_both_ways(served: Server) -> None:
    triton: ModuleType = pytest.importorskip("tritonclient.http")
    client = triton.InferenceServerClient(url=served.url.removeprefix("http://"))
    numeric = np.tile(np.array([[30, 500]], np.float32), (400, 1))
    inputs = [triton.InferInput("numeric", [400, 2], "FP32"), triton.InferInput("categorical", [400, 1], "BYTES")]
    inputs[0].set_data_from_numpy(numeric)
    inputs[1].set_data_from_numpy(np.array([["rome"]] * 400, object))
    headers = {"authorization": f"Bearer {served.tokens['analyst']}"}
    answers = [
        client.infer(
            "credit",
            inputs,
            headers=headers,
            request_compression_algorithm=name,
            response_compression_algorithm=name,
        ).as_numpy("probabilities")
        for name in (None, "gzip", "deflate")
    ]
    client.close()
    assert answers[0].shape == (400, 2)
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])
