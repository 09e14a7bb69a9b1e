"""Tensors as bytes, from an unmodified `tritonclient` and from callers who lie about lengths."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from modelyard.records import Signature
from modelyard.serving.errors import HttpError
from modelyard.serving.protocols.binary import FIXED, numbers_in, shares, split, texts_in
from modelyard.serving.protocols.lifting import lifter
from modelyard.serving.protocols.oip import _decode_request, _tensor
from modelyard.serving.protocols.tensors import Tensor, parse_tensors
from modelyard.serving.validate import Validator
from modelyard.store.requests import newest
from tests.kernels import kernels

from .conftest import (  # noqa: TID252 - the suite is not installed
    MIXED,
    Server,
    mixed_answer,
    mixed_bundle,
    regression_bundle,
)

__all__ = ["kernels"]

AGES, INCOMES, TOWNS = [30.0, 60.0, 18.0], [500.0, 2500.0, 0.0], ["paris", "rome", "oslo"]
LENGTH = "Inference-Header-Content-Length"


def texts(*values: str) -> bytes:
    return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)


def post(served: Server, head: Any, blobs: bytes, length: Any = None, **headers: str) -> Any:
    text = msgspec.json.encode(head)
    with served.client() as client:
        return client.post(
            "/v2/models/credit/infer",
            content=text + blobs,
            headers={LENGTH: str(len(text) if length is None else length), **headers},
        )


def tensor(name: str, datatype: str, shape: list[int], size: Any = None, **more: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": name, "datatype": datatype, "shape": shape, **parameters, **more}


def outputs(answer: Any) -> dict[str, Any]:
    """Read an answer by the letter of the protocol."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    head, rest = msgspec.json.decode(answer.content[:length]), answer.content[length:]
    found: dict[str, Any] = {}
    for one in head["outputs"]:
        if (size := one.get("parameters", {}).get("binary_data_size")) is None:
            found[one["name"]] = one["data"]
            continue
        blob, rest = rest[:size], rest[size:]
        if one["datatype"] == "FP32":
            found[one["name"]] = np.frombuffer(blob, "<f4").tolist()
        else:
            found[one["name"]] = texts_in("", one["shape"], memoryview(blob))
    assert not rest
    return found


NUMERIC = np.array([AGES, INCOMES], "<f4").T.tobytes()
MIX = [tensor("numeric", "FP32", [3, 2], 24), tensor("categorical", "BYTES", [3, 1], len(texts(*TOWNS)))]


def test_bytes_json_and_predict_answer_the_same(served: Server) -> None:
    rows = [{"age": a, "income": i, "city": t} for a, i, t in zip(AGES, INCOMES, TOWNS, strict=True)]
    with served.client() as client:
        plain = client.post("/predict", json={"rows": rows}).json()["predictions"]
    yes = [p["probabilities"]["yes"] for p in plain]
    assert yes == pytest.approx([mixed_answer(a, i, t) for a, i, t in zip(AGES, INCOMES, TOWNS, strict=True)])
    blobs = NUMERIC + texts(*TOWNS)
    json_city = tensor("categorical", "BYTES", [3, 1], data=TOWNS)
    for head, rest in (({"inputs": MIX}, blobs), ({"inputs": [json_city, MIX[0]]}, NUMERIC)):
        for asked in (
            {},
            {"parameters": {"binary_data_output": True}},
            {"outputs": [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probabilities"}]},
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "label", "parameters": {"binary_data": False}}, {"name": "probabilities"}],
            },
        ):
            found = outputs(post(served, {**head, **asked}, rest))
            assert found["probabilities"][1::2] == yes
            assert found["label"] == [p["label"] for p in plain]


def test_answer_is_binary_only_where_asked(served: Server) -> None:
    answer = post(served, {"inputs": MIX}, NUMERIC + texts(*TOWNS))
    assert LENGTH not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    asked = {"inputs": MIX, "parameters": {"binary_data_output": True}}
    answer = post(served, asked, NUMERIC + texts(*TOWNS))
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("datatype", FIXED)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_every_datatype_means_what_numpy_says(datatype: str, offset: int) -> None:
    kind = np.dtype(bool) if datatype == "BOOL" else np.dtype(FIXED[datatype])
    low, high = (0, 1) if datatype == "BOOL" else (0, 100)
    values = np.random.default_rng(5).integers(low, high + 1, 6).astype(kind)
    data = memoryview(b"x" * offset + values.tobytes())[offset:]
    found = numbers_in("t", datatype, [3, 2], data)
    assert found.tolist() == values.astype(float).tolist()
    assert found.flags.aligned
    wide = datatype in ("INT32", "INT64", "UINT32", "UINT64", "FP64")
    assert found.dtype == (np.float64 if wide else np.float32)
    for wrong in (data[:-1], memoryview(bytes(data) + b"x"), memoryview(b"")):
        with pytest.raises(HttpError, match="tensor-binary"):
            numbers_in("t", datatype, [3, 2], wrong)


@pytest.mark.parametrize("datatype", [name for name in FIXED if "INT" in name])
@pytest.mark.parametrize("rows", [1, 2, 400])
def test_a_number_beyond_its_datatype_is_refused_as_json_too(datatype: str, rows: int, kernels: str) -> None:
    kind = np.iinfo(FIXED[datatype])
    low, high = int(kind.min), int(kind.max)
    columns = Validator(Signature(features=MIXED.numbers, problem=MIXED.problem)).columns

    def parsed(value: int | None) -> Any:
        given = [{"name": "age", "datatype": "FP64", "shape": [rows], "data": [30] * rows}]
        given.append({"name": "income", "datatype": datatype, "shape": [rows], "data": [5] * (rows - 1) + [value]})
        text = json.dumps({"inputs": given}).encode()
        lifted = lifter()(text)
        request = _decode_request(text if lifted is None else lifted.less)
        return parse_tensors(columns, [_tensor(one, lifted) for one in request.inputs])

    for value in (low, 0, 7, high, None):
        found = parsed(value).numbers[-1, 1]
        assert np.isnan(found) if value is None else found == np.float64(value)
    # A number that a double cannot tell from the nearest one inside is taken for that.
    beyond = 1 if kind.bits < 64 else 5000
    for value in (low - beyond, high + beyond, high * 10):
        # The parser has no bound as high as that, and what is no double at all is refused elsewhere.
        if datatype == "UINT64" and value > high:
            continue
        with pytest.raises(HttpError, match="tensor-type") as refused:
            parsed(value)
        assert refused.value.message == f"row {rows - 1}: `income` holds something else than {datatype}"


def test_edge_of_the_range_is_inside_whatever_the_width(served: Server) -> None:
    for datatype, kind in (("FP32", "<f4"), ("FP64", "<f8"), ("FP16", "<f2"), ("INT16", "<i2")):
        blob = np.array([[18, 9000]], kind).tobytes()
        inputs = [tensor("numeric", datatype, [1, 2], len(blob)), tensor("categorical", "BYTES", [1, 1], 8)]
        answer = post(served, {"inputs": inputs}, blob + texts("rome"))
        assert "parameters" not in answer.json(), answer.text
        blob = np.array([[17, 9000]], kind).tobytes()
        answer = post(served, {"inputs": inputs}, blob + texts("rome"))
        assert answer.json()["parameters"]["warnings"] == ["`age` is outside the range seen in training"]


@pytest.mark.parametrize(
    ("head", "blobs", "length", "code"),
    [
        ({"inputs": MIX}, NUMERIC, None, "tensor-binary"),
        ({"inputs": MIX}, NUMERIC + texts(*TOWNS) + b"x", None, "tensor-binary"),
        ({"inputs": MIX}, NUMERIC + texts(*TOWNS), 10**7, "tensor-binary"),
        ({"inputs": MIX}, NUMERIC + texts(*TOWNS), "1" * 5000, "tensor-binary"),
        ({"inputs": MIX}, NUMERIC + texts(*TOWNS), "-1", "tensor-binary"),
        ({"inputs": MIX}, NUMERIC + texts(*TOWNS), "1_0", "tensor-binary"),
        ({"inputs": MIX}, NUMERIC + texts(*TOWNS), "0", "body-not-json"),
        ({"inputs": MIX}, NUMERIC + texts(*TOWNS), 7, "body-not-json"),
        ({"inputs": [{**MIX[0], "shape": [1, 2]}, MIX[1]]}, NUMERIC + texts(*TOWNS), None, "tensor-binary"),
        ({"inputs": [{**MIX[0], "shape": [100_000, 2]}, MIX[1]]}, NUMERIC + texts(*TOWNS), None, "tensor-binary"),
        ({"inputs": [{**MIX[0], "datatype": "FP64"}, MIX[1]]}, NUMERIC + texts(*TOWNS), None, "tensor-binary"),
        ({"inputs": [{**MIX[0], "datatype": "FP8"}, MIX[1]]}, NUMERIC + texts(*TOWNS), None, "tensor-type"),
        ({"inputs": [{**MIX[0], "data": [1, 2]}, MIX[1]]}, NUMERIC + texts(*TOWNS), None, "tensor-binary"),
        *[
            (
                {"inputs": [tensor("numeric", "FP32", [3, 2], size), MIX[1]]},
                NUMERIC + texts(*TOWNS),
                None,
                "tensor-binary",
            )
            for size in (2**31, 2**63, 10**30, -1, True, 24.0, "24", [24])
        ],
        ({"inputs": [MIX[0], MIX[0]]}, NUMERIC * 2, None, "tensor-shape"),
        (
            {"inputs": [MIX[0], tensor("categorical", "BYTES", [3, 1], 12)]},
            NUMERIC + b"\xff" * 12,
            None,
            "tensor-binary",
        ),
        (
            {"inputs": [MIX[0], tensor("categorical", "BYTES", [3, 1], 15)]},
            NUMERIC + texts("", "", "") + b"abc",
            None,
            "tensor-binary",
        ),
        (
            {"inputs": [MIX[0], tensor("categorical", "BYTES", [3, 1], 13)]},
            NUMERIC + b"\x01\0\0\0\xff" + texts("", ""),
            None,
            "tensor-type",
        ),
        (
            {"inputs": MIX, "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            b"",
            None,
            "not-supported",
        ),
        (
            {"inputs": [{**MIX[0], "parameters": {"shared_memory_region": "x"}}, MIX[1]]},
            b"",
            None,
            "not-supported",
        ),
    ],
)
def test_lengths_that_do_not_add_up_are_refused(
    served: Server, head: Any, blobs: bytes, length: Any, code: str
) -> None:
    answer = post(served, head, blobs, length)
    assert answer.status_code == 400, answer.text
    assert answer.json()["code"] == code, answer.text


def test_nan_in_bytes_is_missing_and_infinity_is_refused(served: Server) -> None:
    for value, status, code in (
        (np.nan, 200, None),
        (np.inf, 400, "value-not-finite"),
        (-np.inf, 400, "value-not-finite"),
    ):
        blob = np.array([[30, value]], "<f4").tobytes()
        inputs = [tensor("numeric", "FP32", [1, 2], 8), tensor("categorical", "BYTES", [1, 1], 8)]
        answer = post(served, {"inputs": inputs}, blob + texts("rome"))
        assert (answer.status_code, answer.json().get("code")) == (status, code)
        if status == 200:
            yes = answer.json()["outputs"][0]["data"][1]
            assert yes == pytest.approx(mixed_answer(30, None, "rome"), abs=1e-6)


def test_nothing_is_made_room_for_before_sizes_add_up() -> None:
    validator = Validator(MIXED)
    tracemalloc.start()
    for text in (struct.pack("<I", 2**32 - 1), struct.pack("<I", 2**31)):
        with pytest.raises(HttpError, match="tensor-binary"):
            texts_in("t", [1], memoryview(text))
    with pytest.raises(HttpError, match="tensor-binary"):
        texts_in("t", [10**12], memoryview(b"\0" * 400))
    with pytest.raises(HttpError, match="tensor-binary"):
        shares([("a", 2**40)], memoryview(b"x"))
    for datatype in (*FIXED, "BYTES"):
        whole, width = ("categorical", 1) if datatype == "BYTES" else ("numeric", 2)
        given = [Tensor(whole, [100_000, width], datatype, blob=memoryview(b"x" * 8))]
        if whole == "categorical":
            given.insert(0, Tensor("numeric", [1, 2], "FP32", blob=memoryview(b"\0" * 8)))
        with pytest.raises(HttpError, match=r"tensor-binary|rows-uneven"):
            parse_tensors(validator.columns, given)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100_000
    body = b"{}" + b"x" * 10
    assert split(body, b"") == (body, memoryview(b""))
    assert split(body, b"2") == (b"{}", memoryview(b"x" * 10))


def test_float32_reaches_the_model_without_another_copy() -> None:
    validator = Validator(MIXED)
    data = np.zeros((1000, 2), "<f4").tobytes()
    towns = texts(*["rome"] * 1000)
    blobs = [
        Tensor("numeric", [1000, 2], "FP32", blob=memoryview(data)),
        Tensor("categorical", [1000, 1], "BYTES", blob=memoryview(towns)),
    ]
    parsed = parse_tensors(validator.columns, blobs)
    assert validator.fit([parsed])["numeric"] is not None
    assert np.shares_memory(parsed.numbers, np.frombuffer(data, "u1"))


@pytest.mark.parametrize("regression", [False, True])
def test_many_rows_answer_and_are_logged_as_few_do(fresh: Callable[..., Server], regression: bool) -> None:
    count = 300
    server = fresh(regression_bundle() if regression else mixed_bundle())
    drawn = np.random.default_rng(3).uniform(18, 90, (count, 2)).astype("<f4")
    names = ("a", "b") if regression else ("age", "income")
    cities = ["paris" if n % 3 else None for n in range(count)]
    rows = [dict(zip(names, map(float, row), strict=True)) for row in drawn]
    if not regression:
        rows = [{**row, "city": city} for row, city in zip(rows, cities, strict=True)]
    towns = b"" if regression else texts(*[city or "" for city in cities])
    inputs = [tensor("numeric", "FP32", [count, 2], drawn.nbytes)]
    inputs += [] if regression else [tensor("categorical", "BYTES", [count, 1], len(towns))]
    head = msgspec.json.encode({"id": "much", "inputs": inputs, "parameters": {"binary_data_output": True}})
    with server.client() as client:
        few = [client.post("/predict", json=row).json()["predictions"][0] for row in rows[:5]]
        many = client.post("/predict", json={"rows": rows}).json()["predictions"]
        path = f"/v2/models/{server.endpoint}/infer"
        body = head + drawn.tobytes() + towns
        answer = client.post(path, content=body, headers={LENGTH: str(len(head))})
    found = outputs(answer)
    if regression:
        assert [p["value"] for p in many] == found["prediction"]
    else:
        assert [p["label"] for p in many] == found["label"]
        assert [v for p in many for v in p["probabilities"].values()] == found["probabilities"]
    assert many[:5] == few
    server.stop()
    with contextlib.closing(sqlite3.connect(server.log)) as db:
        logged = {one.id: one for one in newest(db)}
    assert logged.pop("much").inputs == rows
    (other,) = [one for one in logged.values() if len(one.inputs) == count]
    assert other.inputs == rows
    label = "value" if regression else "label"
    assert [one["prediction"] for one in other.outputs] == [p[label] for p in many]
    if not regression:
        assert [one["probabilities"] for one in other.outputs] == [p["probabilities"] for p in many]
