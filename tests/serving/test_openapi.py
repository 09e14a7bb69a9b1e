"""The description of an endpoint holds for what it takes, gives and refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from .conftest import Server, regression_bundle  # noqa: TID252 - the suite is not installed

ROW = {"age": 30, "income": 500.5, "city": "rome"}


def fits(document: Any, name: str, value: Any) -> bool:
    """Say whether a value fits a schema of the document."""
    schema = {**document, "$ref": f"#/components/schemas/{name}"}
    return Draft202012Validator(schema).is_valid(value)


@pytest.fixture(scope="module")
def document(served: Server) -> Any:
    with served.client("viewer") as client:
        return client.get("/openapi.json").json()


def test_it_names_the_model_and_every_schema_is_one(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["title"] == "credit"
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (ROW, "Row"),
        ({**ROW, "income": None, "city": None}, "Row"),
        ({"rows": [ROW, ROW]}, "Rows"),
        ({"columns": {name: [value] for name, value in ROW.items()}}, "Columns"),
        ({**ROW, "age": None}, "Row"),
        ({**ROW, "age": "30"}, "Row"),
        ({**ROW, "more": 1}, "Row"),
        ({"age": 30}, "Row"),
        ({"rows": []}, "Rows"),
        ({"columns": {"age": [1]}}, "Columns"),
    ],
)
def test_what_fits_is_answered_and_what_does_not_is_refused(
    served: Server, document: Any, body: Any, name: str
) -> None:
    with served.client() as client:
        answer = client.post("/predict", json=body)
    assert answer.status_code == (200 if fits(document, name, body) else 400)
    assert fits(document, "Answer" if answer.status_code == 200 else "Refusal", answer.json())


def test_answer_with_warnings_fits(served: Server, document: Any) -> None:
    with served.client() as client:
        answer = client.post("/predict", json={**ROW, "age": 17}).json()
    assert answer["warnings"]
    assert fits(document, "Answer", answer)


def test_regression(fresh: Callable[..., Server]) -> None:
    with fresh(regression_bundle()).client() as client:
        document = client.get("/openapi.json").json()
        answer = client.post("/predict", json={"a": 1, "b": 2}).json()
    assert fits(document, "Answer", answer)
    assert not fits(document, "Answer", {**answer, "predictions": [{"label": "x"}]})
