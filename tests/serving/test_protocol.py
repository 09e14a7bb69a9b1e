"""The open protocol, spoken by an unmodified `tritonclient`."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from modelyard.records import Feature, Problem, Signature
from modelyard.serving.columns import Columns
from modelyard.serving.errors import HttpError
from modelyard.serving.protocols.tensors import DATATYPES, Tensor, parse_tensors

from .conftest import (  # noqa: TID252 - the suite is not installed, so there is no absolute name
    MIXED,
    Server,
    draft,
    lay,
    mixed_answer,
    regression_bundle,
    start,
)

AGES, INCOMES, TOWNS = [30.0, 60.0, 18.0], [500.0, 2500.0, 0.0], ["paris", "rome", "oslo"]
EXPECTED = [mixed_answer(a, i, t) for a, i, t in zip(AGES, INCOMES, TOWNS, strict=True)]


@pytest.fixture(scope="module")
def triton() -> ModuleType:
    with warnings.catch_warnings():
        # gevent, under the client, warns about itself when it is imported.
        warnings.simplefilter("ignore")
        import tritonclient.http

    return tritonclient.http


@pytest.fixture
def connect(triton: ModuleType) -> Iterator[Callable[[Server], Any]]:
    clients = []

    def make(server: Server) -> Any:
        clients.append(triton.InferenceServerClient(url=server.url.removeprefix("http://")))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def bearer(server: Server, role: str = "analyst") -> dict[str, str]:
    return {"authorization": f"Bearer {server.tokens[role]}"}


def tensor(triton: ModuleType, name: str, array: Any, datatype: str, *, binary: bool = False) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.mark.parametrize("asked", ["nothing", "json", "binary", "label"])
@pytest.mark.parametrize("binary", [(False, False), (True, True), (False, True)])
def test_infer_with_the_signatures_tensors(
    triton: ModuleType, served: Server, connect: Callable[[Server], Any], asked: str, binary: tuple[bool, bool]
) -> None:
    numeric = np.array([AGES, INCOMES], np.float32).T
    inputs = [
        tensor(triton, "numeric", numeric, "FP32", binary=binary[0]),
        tensor(triton, "categorical", np.array(TOWNS, object).reshape(3, 1), "BYTES", binary=binary[1]),
    ]
    outputs = {
        "nothing": None,
        "json": [triton.InferRequestedOutput(n, binary_data=False) for n in ("probabilities", "label")],
        "binary": [triton.InferRequestedOutput(n, binary_data=True) for n in ("probabilities", "label")],
        "label": [triton.InferRequestedOutput("label", binary_data=False)],
    }[asked]
    result = connect(served).infer("credit", inputs, outputs=outputs, request_id="t-1", headers=bearer(served))
    assert result.get_response()["id"] == "t-1"
    labels = ["yes" if p >= 0.5 else "no" for p in EXPECTED]
    if asked in ("nothing", "binary"):
        # The client gives texts back as bytes where they came as such.
        assert result.as_numpy("label").tolist() == [label.encode() for label in labels]
    else:
        assert result.as_numpy("label").tolist() == labels
    if asked == "label":
        assert result.as_numpy("probabilities") is None
        return
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (3, 2)
    assert probabilities[:, 1] == pytest.approx(EXPECTED, abs=1e-6)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize(("dtype", "datatype"), [(np.float64, "FP64"), (np.int64, "INT64"), (np.uint8, "UINT8")])
@pytest.mark.parametrize("binary", [False, True])
def test_infer_with_one_tensor_a_column(
    triton: ModuleType,
    served: Server,
    connect: Callable[[Server], Any],
    shape: tuple[int, ...],
    dtype: type,
    datatype: str,
    binary: bool,
) -> None:
    inputs = [
        tensor(triton, "city", np.array(TOWNS, object).reshape(shape), "BYTES", binary=binary),
        tensor(triton, "income", np.array(INCOMES, np.float32).reshape(shape), "FP32"),
        tensor(triton, "age", np.array(AGES, dtype).reshape(shape), datatype, binary=binary),
    ]
    result = connect(served).infer("credit", inputs, headers=bearer(served))
    assert result.as_numpy("probabilities")[:, 1] == pytest.approx(EXPECTED, abs=1e-6)


def test_infer_regression(triton: ModuleType, fresh: Callable[..., Server], connect: Callable[[Server], Any]) -> None:
    server = fresh(regression_bundle())
    array = np.array([[1, 0.5], [-2, 0]], np.float32)
    result = connect(server).infer("hours", [tensor(triton, "numeric", array, "FP32")], headers=bearer(server))
    assert result.as_numpy("prediction").tolist() == [2.5, -4.0]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, target = load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows, target), rows


def test_answers_equal_scikit_learns(
    triton: ModuleType, fitted: tuple[Any, Any], tmp_path: Path, connect: Callable[[Server], Any]
) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.helpers.onnx_helper import select_model_inputs_outputs

    model, rows = fitted
    onnx = to_onnx(
        model, initial_types=[("numeric", FloatTensorType([None, 30]))], options={"zipmap": False}, target_opset=17
    )
    onnx = select_model_inputs_outputs(onnx, "probabilities")
    signature = Signature(
        features=tuple(Feature(name=f"x{n}", type="number", source="Float32") for n in range(30)),
        problem=Problem(task="binary", target="y", classes=("0", "1"), positive="1"),
    )
    made = draft("cancer", signature, onnx.SerializeToString(), labels=b"[0,1]")
    from modelyard.security.tokens import add_token

    server = start(tmp_path, lay(tmp_path, made), analyst=add_token(tmp_path, "a", "analyst"))
    try:
        result = connect(server).infer("cancer", [tensor(triton, "numeric", rows, "FP32")], headers=bearer(server))
        with server.client() as client:
            columns = {f"x{n}": rows[:, n].tolist() for n in range(30)}
            predictions = client.post("/predict", json={"columns": columns}).json()["predictions"]
    finally:
        server.stop()
    expected = model.predict_proba(rows)
    assert np.abs(result.as_numpy("probabilities") - expected).max() < 1e-5
    # The client gives texts back as bytes where they came as such.
    assert result.as_numpy("label").tolist() == [str(v).encode() for v in model.predict(rows)]
    assert [p["label"] for p in predictions] == model.predict(rows).tolist()
    assert [p["probabilities"]["1"] for p in predictions] == result.as_numpy("probabilities")[:, 1].tolist()


def json_tensor(name: str, shape: list[int], datatype: str, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


NUMERIC = json_tensor("numeric", [1, 2], "FP32", [30, 500])
CITY = json_tensor("categorical", [1, 1], "BYTES", ["rome"])


def infer(served: Server, **body: Any) -> Any:
    with served.client() as client:
        return client.post("/v2/models/credit/infer", json=body)


def test_null_is_a_missing_value_and_rows_may_be_nested(served: Server) -> None:
    nested = json_tensor("numeric", [2, 2], "FP32", [[30, None], [60, 100]])
    towns = json_tensor("categorical", [2, 1], "BYTES", [[None], ["rome"]])
    outputs = infer(served, inputs=[nested, towns]).json()["outputs"]
    yes = outputs[0]["data"][1::2]
    assert yes == pytest.approx([mixed_answer(30, None, None), mixed_answer(60, 100, "rome")], abs=1e-6)


@pytest.mark.parametrize(
    ("inputs", "code", "says"),
    [
        ([], "tensor-missing", "`numeric`"),
        ([NUMERIC], "tensor-missing", "`categorical`"),
        ([NUMERIC, CITY, CITY], "tensor-shape", "twice"),
        ([NUMERIC, CITY, {**CITY, "name": "citty"}], "tensor-unknown", "`city`"),
        # A misspelt name is the mistake, not the tensor that is missing because of it.
        ([{**NUMERIC, "name": "numerc"}, CITY], "tensor-unknown", "did you mean `numeric`?"),
        ([NUMERIC, {**CITY, "name": "citty"}], "tensor-unknown", "did you mean `city`?"),
        ([NUMERIC, CITY, {**CITY, "name": "city"}], "tensor-shape", "`city` is given twice"),
        ([NUMERIC, {**CITY, "name": "x" * 100_000}], "tensor-unknown", "takes no tensor"),
        ([{**NUMERIC, "shape": [1, 3]}, CITY], "tensor-shape", "[rows, 2]"),
        ([{**NUMERIC, "shape": [2]}, CITY], "tensor-shape", "[rows, 2]"),
        ([{**NUMERIC, "shape": [-1, 2]}, CITY], "tensor-shape", "`numeric`"),
        ([{**NUMERIC, "shape": [2, 2]}, CITY], "tensor-shape", "2 values"),
        ([{**NUMERIC, "shape": [100_000, 2]}, CITY], "tensor-shape", "2 values"),
        ([{**NUMERIC, "data": [[30], [500, 1]]}, CITY], "tensor-shape", "3 values"),
        ([{**NUMERIC, "shape": [0, 2], "data": []}, {**CITY, "shape": [0, 1], "data": []}], "rows-empty", "no row"),
        ([NUMERIC, {**CITY, "shape": [2, 1], "data": ["a", "b"]}], "rows-uneven", "2 rows"),
        ([{**NUMERIC, "datatype": "BYTES"}, CITY], "tensor-type", "numbers"),
        ([{**NUMERIC, "datatype": "FLOAT"}, CITY], "tensor-type", "FLOAT"),
        ([{**NUMERIC, "data": ["30", "500"]}, CITY], "tensor-type", "row 0: `numeric` holds something else than FP32"),
        ([{**NUMERIC, "shape": [2, 2], "data": [1, 2, 3, "4"]}, CITY], "tensor-type", "row 1: `numeric`"),
        ([{**NUMERIC, "shape": [2, 2], "data": [[1, 2], [True, 4]]}, CITY], "tensor-type", "row 1: `numeric`"),
        ([{**NUMERIC, "data": {"a": 1}}, CITY], "tensor-type", "FP32"),
        ([{k: v for k, v in NUMERIC.items() if k != "data"}, CITY], "tensor-shape", "no data"),
        ([NUMERIC, {**CITY, "datatype": "INT32", "data": [1]}], "tensor-type", "texts"),
        (
            [NUMERIC, {"name": "city", "shape": [1], "datatype": "INT32", "data": [1]}],
            "tensor-type",
            "`city` holds texts",
        ),
        ([{**NUMERIC, "data": [None, 500]}, CITY], "value-missing", "`age`"),
        ([{**NUMERIC, "data": [30, 1e39]}, CITY], "value-not-finite", "`income`"),
        (
            [{**NUMERIC, "datatype": "INT64", "data": [30, 10**400]}, CITY],
            "tensor-type",
            "`numeric` holds something else than INT64",
        ),
        ([{**NUMERIC, "name": 3}, CITY], "body-shape", "inputs[0].name"),
        ({}, "body-shape", "inputs"),
    ],
)
def test_what_does_not_fit_is_named(served: Server, inputs: Any, code: str, says: str) -> None:
    answer = infer(served, inputs=inputs)
    assert answer.status_code == 400, answer.text
    error = answer.json()
    assert (error["code"], error["id"]) == (code, answer.headers["x-request-id"])
    # The protocol wants `error` to be a text.
    assert error["error"].startswith(f"[{code}] ")
    assert says in error["error"]


def twice(body: Any, name: str, value: Any) -> bytes:
    """Return JSON in which the first object that has a name has it once more, in front."""
    return json.dumps(body).replace(f'"{name}": ', f'"{name}": {json.dumps(value)}, "{name}": ', 1).encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inputs", []),
        ("id", "a"),
        ("outputs", []),
        ("parameters", {"z": 1}),
        ("shape", [1, 1]),
        ("data", [1, 2]),
        ("name", "x"),
    ],
)
@pytest.mark.parametrize(
    "more",
    [
        # As few colons as there are names, as many as can be, and values that stand elsewhere, too.
        {},
        {"id": "a", "outputs": [{"name": "label"}]},
        {"parameters": {"y": 1}, "outputs": [{"name": "label", "parameters": {"binary_data": False}}]},
        {"id": "a:b", "inputs": [{**NUMERIC, "parameters": {"x": {}}}, {**CITY, "data": ["rome: {}"]}]},
        {"id": "a", "x": [{"y": ["rome: {}" * 50]}], "inputs": [NUMERIC, {**CITY, "data": ["rome: {}" * 50]}]},
    ],
)
def test_a_name_that_stands_twice_is_refused(served: Server, name: str, value: Any, more: dict[str, Any]) -> None:
    body = {"inputs": [NUMERIC, CITY], **more}
    if f'"{name}": ' not in json.dumps(body):
        body[name] = value or [{"name": "label"}]
    with served.client() as client:
        assert client.post("/v2/models/credit/infer", content=json.dumps(body).encode()).status_code == 200
        refused = client.post("/v2/models/credit/infer", content=twice(body, name, value))
    assert refused.status_code == 400
    assert (refused.json()["code"], f"`{name}`" in refused.json()["error"]) == ("name-twice", True)


def test_what_nobody_reads_is_json_too_and_not_without_end(served: Server) -> None:
    whole = json.dumps({"inputs": [NUMERIC, CITY]}).encode()
    with served.client() as client:

        def told(more: bytes) -> tuple[int, str]:
            answer = client.post("/v2/models/credit/infer", content=whole[:-1] + more + b"}")
            return answer.status_code, answer.json().get("code", "")

        assert told(b', "x": {"y": 1}') == (200, "")
        assert told(b', "x": "\xff"') == (400, "body-not-json")
        assert told(b', "x": {"y": %s%s}' % (b"[" * 990, b"]" * 990))[0] in (200, 400)
        assert told(b', "x": [%s]' % b",".join([b'{"y":1}'] * 100_000)) == (400, "body-shape")


@pytest.mark.parametrize("rows", [100_001, 30_000_000, 10**14, 2**63, 10**18, 10**400, 10**4000])
@pytest.mark.parametrize("datatype", DATATYPES)
def test_shape_alone_takes_no_room(datatype: str, rows: int) -> None:
    """What is allocated follows the data that came, whatever the shape says."""
    one = b'["a"]' if datatype == "BYTES" else b"[true]" if datatype == "BOOL" else b"[1]"
    columns = Columns(MIXED)
    whole = "categorical" if datatype == "BYTES" else "numeric"
    width = 1 if datatype == "BYTES" else 2
    given = [Tensor(whole, [rows, width], datatype, one)]
    alone = [Tensor(name, [rows], datatype, one) for name in ("age", "income", "city")]
    if whole == "categorical":
        given.insert(0, Tensor("numeric", [1, 2], "FP32", b"[30,500]"))
        alone[:2] = [Tensor(name, [1], "FP32", b"[30]") for name in ("age", "income")]
    for tensors in (given, alone):
        tracemalloc.start()
        with pytest.raises(HttpError) as caught:
            parse_tensors(columns, tensors)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert caught.value.status == 413
        assert caught.value.code == "rows-too-many"
        assert most < 1_000_000


def test_as_many_values_as_the_shape_says_or_none_are_made() -> None:
    columns = Columns(MIXED)
    city = Tensor("categorical", [1, 1], "BYTES", b'["rome"]')
    long = b"[" + b"1," * 500_000 + b"1]"
    tracemalloc.start()
    with pytest.raises(HttpError, match="tensor-shape"):
        parse_tensors(columns, [Tensor("numeric", [1, 2], "FP32", long), city])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4_000_000
    texts = Tensor("categorical", [100_000, 1], "BYTES", b'["a,b"]')
    numbers = Tensor("numeric", [1, 2], "FP32", b"[30,500]")
    with pytest.raises(HttpError, match="rows-uneven"):
        parse_tensors(columns, [numbers, texts])
    texts.shape = [1, 1]
    assert parse_tensors(columns, [numbers, texts]).count == 1


def test_huge_shape_is_refused_over_http(served: Server) -> None:
    for shape in ([30_000_000, 1], [10**14, 1], [10**400, 1]):
        answer = infer(served, inputs=[NUMERIC, {**CITY, "shape": shape}])
        assert (answer.status_code, answer.json()["code"]) == (413, "rows-too-many")
    assert infer(served, inputs=[{**NUMERIC, "shape": [1, 10**400]}, CITY]).json()["code"] == "tensor-shape"
    body = b'{"inputs":[{"name":"numeric","datatype":"FP32","shape":[1' + b"0" * 9000 + b',2],"data":[1,2]}]}'
    with served.client() as client:
        assert client.post("/v2/models/credit/infer", content=body).json()["code"] == "value-not-finite"
    answer = infer(served, inputs=[NUMERIC, CITY], outputs=[{"name": "x" * 100_000}])
    assert answer.json()["code"] == "tensor-unknown"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"inputs": [{"name": "numeric", "data": [NaN]}]}'])
def test_broken_json(served: Server, body: bytes) -> None:
    with served.client() as client:
        answer = client.post("/v2/models/credit/infer", content=body)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("body-not-json", "body-shape", "value-not-finite")


def test_nan_and_unknown_output_are_refused(
    triton: ModuleType, served: Server, connect: Callable[[Server], Any]
) -> None:
    client, headers = connect(served), bearer(served)
    city = tensor(triton, "categorical", np.array([["rome"]], object), "BYTES")
    nan = tensor(triton, "numeric", np.array([[30, np.nan]], np.float32), "FP32")
    with pytest.raises(triton.InferenceServerException, match="value-not-finite"):
        client.infer("credit", [nan, city], headers=headers)
    whole = tensor(triton, "numeric", np.array([[30, 1]], np.float32), "FP32")
    with pytest.raises(triton.InferenceServerException, match="tensor-unknown"):
        client.infer("credit", [whole, city], outputs=[triton.InferRequestedOutput("labels")], headers=headers)
    with pytest.raises(triton.InferenceServerException, match="request-id"):
        client.infer("credit", [whole, city], request_id="a b", headers=headers)
    with pytest.raises(triton.InferenceServerException, match=r"\[401\] \[token-missing\]"):
        client.infer("credit", [whole, city])
