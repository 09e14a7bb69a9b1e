"""The description of an endpoint holds for what it takes, gives and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import replace
from openapi_spec_validator import validate

from modelyard.inference import BundleDraft
from modelyard.records import Feature, Signature
from modelyard.serving.protocols.repository import unsupported
from modelyard.serving.routes import ROUTES

from .conftest import (  # noqa: TID252 - the suite is not installed
    CITIES,
    MIXED,
    Server,
    draft,
    mixed_bundle,
    mixed_model,
    regression_bundle,
)

ROW = {"age": 30, "income": 500.5, "city": "rome"}


def numbered_bundle() -> BundleDraft:
    return draft(
        "credit",
        replace(MIXED, problem=replace(MIXED.problem, classes=("0", "1"), positive="1")),
        mixed_model(),
        labels=b"[0,1]",
    )


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


@pytest.mark.parametrize(
    ("made", "truths"),
    [
        (mixed_bundle, ["no", "yes", "maybe", "", True, 1]),
        (numbered_bundle, [0, 1, "0", "1", 1.0, 2, "2", "no", True]),
        (regression_bundle, [0, -1.5, "2.25", "much", "", True, "1e999"]),
    ],
    ids=["texts", "numbers", "values"],
)
def test_outcome_fits_where_it_is_taken(
    fresh: Callable[..., Server], made: Callable[[], BundleDraft], truths: list[Any]
) -> None:
    with fresh(made()).client() as client:
        document = client.get("/openapi.json").json()
        for truth in truths:
            outcome = {"id": "r-1", "truth": truth}
            answer = client.post("/feedback", json=outcome)
            assert answer.status_code == (200 if fits(document, "Outcome", outcome) else 400), truth
            assert fits(document, "Joined" if answer.status_code == 200 else "Refusal", answer.json())


def test_it_is_openapi_and_describes_every_route_that_answers(document: Any) -> None:
    validate(document)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item} - {
        ("PARAMETERS", path) for path in document["paths"]
    }
    assert described == {(r.method, r.path) for r in ROUTES if r.handler is not unsupported}


def test_what_is_open_to_all_says_so(document: Any) -> None:
    open_to_all = {r.path for r in ROUTES if r.action is None}
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            assert ("security" in item[method]) == (path in open_to_all)


def test_it_is_the_same_each_time(served: Server, fresh: Callable[..., Server]) -> None:
    with served.client("viewer") as one, fresh().client("viewer") as other:
        assert one.get("/openapi.json").content == other.get("/openapi.json").content


def test_guards_are_part_of_it(fresh: Callable[..., Server]) -> None:
    guards = {"out_of_range": "reject", "unseen": "reject", "confidence": {"at_least": 0.9}, "coerce": ["income"]}
    server = fresh(None, "--policy", json.dumps({"guards": guards}))
    bodies = [{**ROW, "age": 17}, {**ROW, "city": "oslo"}, {**ROW, "income": "12.5"}, {**ROW, "age": "30"}, ROW]
    with server.client() as client:
        document = client.get("/openapi.json").json()
        answers = [client.post("/predict", json=body) for body in bodies]
    assert [answer.status_code for answer in answers] == [422, 422, 200, 400, 200]
    assert [fits(document, "Row", body) for body in bodies] == [False, False, True, False, True]
    assert fits(document, "Answer", answers[4].json())
    assert answers[4].json()["predictions"] == [{"label": None, "withheld": "confidence"}]


def test_checks_of_the_answers_are_part_of_it(fresh: Callable[..., Server]) -> None:
    check = {"use": "blocklist", "params": {"terms": ["rome"], "columns": ["city"]}}
    server = fresh(None, "--policy", json.dumps({"guards": {"checks": [check]}}))
    with server.client() as client:
        document = client.get("/openapi.json").json()
        answer = client.post("/predict", json=ROW)
    assert answer.json()["predictions"] == [{"label": None, "withheld": "blocklist"}]
    assert fits(document, "Answer", answer.json())


def test_a_text_that_is_no_value_is_no_value_of_a_column_that_needs_one(fresh: Callable[..., Server]) -> None:
    city = Feature(name="city", type="category", source="String", nullable=False, categories=CITIES)
    features = tuple(city if feature.name == "city" else feature for feature in MIXED.features)
    signature = Signature(features=features, problem=MIXED.problem)
    with fresh(draft("credit", signature, mixed_model(), labels=b'["no","yes"]')).client() as client:
        document = client.get("/openapi.json").json()
        assert client.post("/predict", json={**ROW, "city": ""}).status_code == 400
    assert not fits(document, "Row", {**ROW, "city": ""})
