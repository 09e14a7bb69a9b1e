"""`POST /predict`: the answer is the model's, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Server, mixed_answer, regression_bundle  # noqa: TID252 - the suite is not installed, so there is no absolute name

ROW = {"age": 30, "income": 500.0, "city": "paris"}


def refused(answer: Any, status: int, code: str) -> str:
    """Check an error and return its message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "id"}
    assert error["code"] == code, error
    assert error["id"] == answer.headers["x-request-id"]
    for inside in ("Traceback", "/tmp", "site-packages", ".py", "msgspec", "numpy", "onnx", "uvicorn"):
        assert inside not in answer.text.replace(error["id"], "")
        assert inside not in str(answer.headers)
    return str(error["message"])


def test_rows_columns_and_one_row_agree(served: Server) -> None:
    rows = [ROW, {"age": 60, "income": None, "city": None}]
    with served.client() as client:
        by_rows = client.post("/predict", json={"rows": rows}).json()
        columns = {name: [row[name] for row in rows] for name in ROW}
        by_columns = client.post("/predict", json={"columns": columns}).json()
        one = client.post("/predict", json=ROW).json()
    assert by_rows["predictions"] == by_columns["predictions"]
    assert one["predictions"] == by_rows["predictions"][:1]
    for row, got in zip(rows, by_rows["predictions"], strict=True):
        expected = mixed_answer(**row)
        assert got["probabilities"]["yes"] == pytest.approx(expected, abs=1e-6)
        assert got["probabilities"]["no"] == pytest.approx(1 - expected, abs=1e-6)
        assert got["label"] == ("yes" if expected >= 0.5 else "no")
    assert len(by_rows["model"]) == 64
    assert "warnings" not in by_rows


def test_regression_answers_values(fresh: Callable[..., Server]) -> None:
    server = fresh(regression_bundle())
    with server.client() as client:
        got = client.post("/predict", json={"rows": [{"a": 1, "b": 0.5}, {"a": -2, "b": 0}]}).json()
    assert got["predictions"] == [{"value": 2.5}, {"value": -4.0}]


def test_unusual_values_are_answered_with_a_warning(served: Server) -> None:
    with served.client() as client:
        got = client.post("/predict", json={"rows": [ROW, {"age": 120, "income": 1, "city": "oslo"}]}).json()
    assert [(w["column"], w["rows"]) for w in got["warnings"]] == [("age", 1), ("city", 1)]
    assert len(got["predictions"]) == 2


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"", "body-not-json", "JSON"),
        (b"{", "body-not-json", "JSON"),
        (b'{"rows": [{"age": 1', "body-not-json", "JSON"),
        (b'{"rows": []} x', "body-not-json", "JSON"),
        (b"\xff\xfe", "body-not-json", "UTF-8"),
        (b'{"age": 30, "income": 1, "city": "\xff"}', "body-not-json", "UTF-8"),
        (b"[" * 100_000, "body-not-json", "JSON"),
        (b'{"rows":' * 100_000, "body-not-json", "JSON"),
        (b'{"age": 30, "income" 1}', "body-not-json", "byte 21"),
        (b'{"rows": [{"age": 1', "body-not-json", "ends in the middle"),
        (b"[" * 100_000, "body-not-json", "nested"),
        (b'{"age": 30, "income": 1, "city": "a", "age": 31}', "name-twice", "`age`"),
        (b'{"rows": [{"age": 30, "income": 1, "city": "a:b", "city": "c"}]}', "name-twice", "`city`"),
        (b'{"rows": [], "rows": [{"age": 30, "income": 1, "city": "a"}]}', "name-twice", "`rows`"),
        (b'{"columns": {"age": [1], "income": [1], "city": ["a"], "age": [2]}}', "name-twice", "`age`"),
        (b"[]", "body-shape", "rows"),
        (b"3", "body-shape", "rows"),
        (b'{"rows": 3}', "body-shape", "rows"),
        (b'{"rows": [3]}', "body-shape", "row 0"),
        (b'{"rows": [], "more": 1}', "body-shape", "alone"),
        (b'{"rows": []}', "rows-empty", "no row"),
        (b'{"columns": {"age": [], "income": [], "city": []}}', "rows-empty", "no row"),
        (b'{"columns": {"age": 1, "income": [1], "city": ["a"]}}', "column-type", "`age`"),
        (b'{"columns": {"age": [1, 2], "income": [1], "city": ["a"]}}', "rows-uneven", "`income`"),
        (b'{"age": 30, "income": 1, "citty": "rome"}', "column-unknown", "did you mean `city`?"),
        (b'{"row": {"age": 30, "income": 1, "city": "rome"}}', "column-unknown", "`row`; did you mean `rows`?"),
        (b'{"column": {"age": [30]}}', "column-unknown", "`column`; did you mean `columns`?"),
        (b'{"rows": [{"row": {"age": 30}}]}', "column-unknown", "row 0: the model takes no column `row`"),
        (b'{"rows": [{"age": 30, "income": 1}]}', "column-missing", "`city`"),
        (b"{}", "column-missing", "columns `age`, `income`, `city` are not given"),
        (b'{"age": "30", "income": 1, "city": "rome"}', "column-type", "row 0: `age` is a number"),
        (b'{"age": true, "income": 1, "city": "rome"}', "column-type", "`age`"),
        (b'{"age": [1], "income": 1, "city": "rome"}', "column-type", "a list"),
        (b'{"age": 30, "income": 1, "city": 3}', "column-type", "`city` is a text"),
        (b'{"age": null, "income": 1, "city": "rome"}', "value-missing", "row 0: `age`"),
        (b'{"age": NaN, "income": 1, "city": "rome"}', "value-not-finite", "NaN"),
        (b'{"age": 30, "income": Infinity, "city": "rome"}', "value-not-finite", "Infinity"),
        (b'{"age": 30, "income": 1e400, "city": "rome"}', "value-not-finite", "double"),
        (b'{"age": 30, "income": -1e39, "city": "rome"}', "value-not-finite", "row 0: `income`"),
        (b'{"age": 1' + b"0" * 400 + b', "income": 1, "city": "rome"}', "value-not-finite", ""),
    ],
)
def test_what_does_not_fit_is_named(served: Server, body: bytes, code: str, says: str) -> None:
    with served.client() as client:
        assert says in refused(client.post("/predict", content=body), 400, code)


def test_callers_id_comes_back_and_bad_ones_are_refused(served: Server) -> None:
    with served.client() as client:
        answer = client.post("/predict", json=ROW, headers={"x-request-id": "order-17"})
        assert answer.json()["id"] == answer.headers["x-request-id"] == "order-17"
        for bad in ("a b", "x" * 129, "\xe9"):
            headers = {b"x-request-id": bad.encode("latin-1")}
            refused(client.post("/predict", json=ROW, headers=headers), 400, "request-id")
        ids = {client.post("/predict", json=ROW).json()["id"] for _ in range(3)}
        assert len(ids) == 3


def test_many_rows_are_answered_in_order(served: Server) -> None:
    rows = [{**ROW, "age": 18 + n % 70, "income": float(n)} for n in range(3000)]
    with served.client() as client:
        got = client.post("/predict", json={"rows": rows}).json()["predictions"]
    assert [p["probabilities"]["yes"] for p in got] == pytest.approx([mixed_answer(**r) for r in rows], abs=1e-6)


def test_more_rows_than_a_request_may_hold(served: Server) -> None:
    many = 100_001
    columns = {"age": [30] * many, "income": [1] * many, "city": ["rome"] * many}
    rows = [{"age": 30, "income": 1, "city": "rome"}] * many
    with served.client() as client:
        assert "100,000" in refused(client.post("/predict", json={"columns": columns}), 413, "rows-too-many")
        refused(client.post("/predict", json={"rows": rows}), 413, "rows-too-many")
        # The slow way through the rows is bounded as well.
        refused(client.post("/predict", json={"rows": [{}] * many}), 413, "rows-too-many")
        # A name is compared with the known ones only where it can be near to one.
        refused(client.post("/predict", json={"x" * 1_000_000: 1}), 400, "column-unknown")
