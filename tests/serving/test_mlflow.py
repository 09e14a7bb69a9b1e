"""MLflow's scoring protocol, in every form that its clients write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.records import Feature
from modelyard.serving.errors import HttpError
from modelyard.serving.protocols.mlflow import _number

from .conftest import Server, mixed_bundle, regression_bundle  # noqa: TID252 - the suite is not installed
from .inprocess import Endpoint  # noqa: TID252 - the same

ROWS: list[dict[str, Any]] = [
    {"age": 30, "city": "paris", "income": 500.5},
    {"age": 60, "city": None, "income": None},
    {"age": 18, "city": 'o"s,lo', "income": 9000},
]
LISTS = [list(row.values()) for row in ROWS]
CSV = 'income,city,age\r\n500.5,paris,30\r\n,,60\r\n9e3,"o""s,lo", 18\r\n'


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["age", "city", "income"], "data": LISTS}},
        {"dataframe_split": {"index": [7, 8, 9], "columns": list(ROWS[0])[::-1], "data": [v[::-1] for v in LISTS]}},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"instances": LISTS},
        {"inputs": {name: [row[name] for row in ROWS] for name in ROWS[0]}},
        {"inputs": LISTS},
        {"inputs": ROWS, "params": {}},
        '{"inputs": [[30, "paris", 500.5], [60, NaN, NaN], [18, "o\\"s,lo", 9000]]}',
        CSV,
        "\ufeff" + CSV.replace("\r\n", "\n"),
    ],
)
def test_every_form_answers_as_predict_does(served: Server, body: Any) -> None:
    with served.client() as client:
        expected = [p["label"] for p in client.post("/predict", json={"rows": ROWS}).json()["predictions"]]
        if isinstance(body, str):
            kind = "application/json" if body.startswith("{") else "text/csv; charset=utf-8"
            answer = client.post("/invocations", content=body, headers={"content-type": kind})
        else:
            answer = client.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": expected}


def test_a_role_sees_as_many_digits_as_elsewhere(fresh: Callable[..., Server]) -> None:
    policy = json.dumps({"access": {"show": {"analyst": "rounded(1)"}}})
    server = fresh(regression_bundle(), "--policy", policy)
    for role, value in (("analyst", 2.4), ("operator", 2.375)):
        with server.client(role) as client:
            assert client.post("/invocations", json={"inputs": {"a": 1, "b": 0.375}}).json() == {"predictions": [value]}
            assert client.post("/predict", json={"a": 1, "b": 0.375}).json()["predictions"] == [{"value": value}]


def test_regression_answers_values(fresh: Callable[..., Server]) -> None:
    with fresh(regression_bundle()).client() as client:
        answer = client.post("/invocations", json={"inputs": {"a": 1, "b": [0.5]}})
    assert answer.json() == {"predictions": [2.5]}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "body-shape"),
        ([], 400, "body-shape"),
        ({"instances": ROWS, "inputs": ROWS}, 400, "body-shape"),
        ({"instances": ROWS, "params": {"x": 1}}, 400, "body-shape"),
        ({"instances": ROWS, "signature_name": "x"}, 400, "body-shape"),
        ({"instances": {"age": [1]}}, 400, "body-shape"),
        ({"instances": []}, 400, "rows-empty"),
        ({"instances": [1, 2]}, 400, "body-shape"),
        ({"instances": [[1, 2]]}, 400, "rows-uneven"),
        ({"inputs": {"age": [1]}}, 400, "column-missing"),
        ({"inputs": [[1] * 3] * 100_001}, 413, "rows-too-many"),
        ({"dataframe_split": LISTS}, 400, "body-shape"),
        ({"dataframe_split": {"columns": [1], "data": LISTS}}, 400, "body-shape"),
        ({"dataframe_split": {"columns": ["age", "age", "city"], "data": LISTS}}, 400, "body-shape"),
        ({"dataframe_split": {"columns": ["agee", "city", "income"], "data": LISTS}}, 400, "column-unknown"),
        ({"dataframe_records": [ROWS[0], {"age": 1}]}, 400, "rows-uneven"),
        ({"dataframe_records": [ROWS[0], 3]}, 400, "body-shape"),
        ('{"inputs": [[NaN, "paris", 1]]}', 400, "value-missing"),
        ('{"inputs": [[30, "paris", -Infinity], [30, "paris", NaN]]}', 400, "value-not-finite"),
        ('{"inputs": [[30, "paris", NaN], [30, "paris", 1e400]]}', 400, "value-not-finite"),
        ('{"inputs": [[30, "paris", NaN]', 400, "value-not-finite"),
        ('{"inputs": ' + "[" * 100_000 + "NaN", 400, "value-not-finite"),
        ('{"dataframe_records": [{"age": 1, "age": 2, "city": "a", "income": 3}]}', 400, "name-twice"),
        ('{"instances": [{"age": 1, "age": NaN, "city": "a", "income": 3}]}', 400, "name-twice"),
        ('{"inputs": {"age": [1], "city": ["a"], "income": [1]}, "inputs": {"age": [1]}}', 400, "name-twice"),
        ("", 400, "rows-empty"),
        ("age,city,income\n", 400, "rows-empty"),
        ("age,city,income\n1,2\n", 400, "rows-uneven"),
        ("age,city,income\nx,2,3\n", 400, "column-type"),
        ("age,city,income\nnan,2,3\n", 400, "value-not-finite"),
        ("age,city,income\n1_0,2,3\n", 400, "column-type"),
        ("age,city,income\n30,2,1e39\n", 400, "value-not-finite"),
        ('age,city,income\n1,"2,3\n', 400, "body-shape"),
        (b"\xff\xfe", 400, "body-shape"),
    ],
)
def test_what_does_not_fit_is_named(served: Server, body: Any, status: int, code: str) -> None:
    with served.client() as client:
        if isinstance(body, (str, bytes)):
            kind = "application/json" if body[:1] == "{" else "text/csv"
            answer = client.post("/invocations", content=body, headers={"content-type": kind})
        else:
            answer = client.post("/invocations", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_other_types_are_refused(served: Server) -> None:
    with served.client() as client:
        answer = client.post("/invocations", content=b"x", headers={"content-type": "application/x-parquet"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "body-type")


def test_ping_is_open(fresh: Callable[..., Server]) -> None:
    with fresh(mixed_bundle()).client("") as client:
        assert client.get("/ping").status_code == 200


def test_csv_says_true_and_false_as_a_table_does() -> None:
    truth = Feature(name="vip", type="number", source="Boolean")
    found = [_number(truth, 0, text) for text in (" True ", "false", "1", "0.0", "")]
    assert found == [1.0, 0.0, 1.0, 0.0, None]
    with pytest.raises(HttpError, match="row 3: `vip` is true or false and was given a text"):
        _number(truth, 3, "yes")
    with pytest.raises(HttpError, match="row 3: `n` is a number and was given a text"):
        _number(Feature(name="n", type="number", source="Int64"), 3, "true")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"dataframe_split": {"columns": ["age", "city", "age"], "data": [[1, "a", 2]]}}', "application/json"),
        ("age,city,age\n1,a,2\n", "text/csv"),
    ],
)
def test_a_column_that_is_given_twice_is_named(tmp_path: Path, body: str, kind: str) -> None:
    with Endpoint(tmp_path, mixed_bundle(), None) as endpoint:
        request = endpoint.request(body.encode(), "/invocations")
        request = request.replace(b"\r\nhost:", b"\r\ncontent-type: %s\r\nhost:" % kind.encode())
        ((status, said),) = asyncio.run(endpoint._ask([request]))
        assert (status, said["error"]["code"]) == (400, "body-shape")
        assert said["error"]["message"] == "column `age` is given twice"


BOM = "\ufeff"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"rows": [{"age": 30, "income": 1, "city": "rome"}]}),
        ("/predict", {"age": 30, "income": 1, "city": "rome"}),
        ("/invocations", {"dataframe_records": [{"age": 30, "income": 1, "city": "rome"}]}),
        ("/invocations", {"dataframe_records": [{"age": 30, "income": float("nan"), "city": "rome"}]}),
        (
            "/v2/models/credit/infer",
            {
                "inputs": [
                    {"name": "numeric", "shape": [1, 2], "datatype": "FP32", "data": [30, 1]},
                    {"name": "categorical", "shape": [1, 1], "datatype": "BYTES", "data": ["rome"]},
                ]
            },
        ),
    ],
)
def test_a_mark_of_utf_8_before_the_body_is_passed_over_once(tmp_path: Path, path: str, body: Any) -> None:
    text = json.dumps(body)
    with Endpoint(tmp_path, mixed_bundle(), None) as endpoint:
        plain, marked, twice, alone = endpoint.ask(
            *[given.encode() for given in (text, BOM + text, BOM + BOM + text, BOM)], path=path
        )
        assert plain[0] == marked[0] == 200
        assert plain[1].keys() == marked[1].keys()
        assert twice[0] == alone[0] == 400
        many = endpoint.ask((BOM * 100_000).encode(), path=path)
        assert [status for status, _ in many] == [400]
