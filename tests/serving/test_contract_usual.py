"""The examples of a description: a row that a caller might send."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.checks.profile import profile
from modelyard.inference import BundleDraft
from modelyard.records import Feature, Signature
from modelyard.serving.contract.description import description
from modelyard.serving.contract.schemas import Endpoint
from modelyard.serving.contract.starting import contract_text
from modelyard.serving.contract.usual import usual_row
from modelyard.serving.limits import Limits
from modelyard.spec.consumers import load_contract

from .conftest import MIXED, Server, draft, mixed_model  # noqa: TID252 - the suite is not installed


def skewed(signature: Signature = MIXED) -> BundleDraft:
    """The mixed model, of data in which most people earn little, a few much, and most live in Rome."""
    columns = {
        "age": [31] * 6 + [18, 40, 90],
        "income": [0.0] * 5 + [150.25, 300.5, 8000.0, 9000.0],
        "city": ["rome"] * 5 + ["paris"] * 2 + [None] * 2,
    }
    made = draft("credit", signature, mixed_model(), b'["no","yes"]')
    files = {**made.files, "profile.json": json.dumps(profile(columns, signature)).encode()}
    files.pop("model.json")
    return BundleDraft.of(made.version, files)


def test_examples_are_what_is_usual_and_not_the_middle_between_the_bounds(
    fresh: Callable[..., Server], tmp_path: Path
) -> None:
    given = description(Endpoint.of(skewed().bundle(), "credit", Limits()))
    row = {"age": 31, "city": "rome", "income": 0.0}
    routes = given["paths"]
    assert routes["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"] == {"rows": [row]}
    # Whoever asks the server reads the same.
    server = fresh(skewed())
    with server.client() as client:
        assert client.get("/openapi.json").json()["paths"] == routes
        assert client.post("/predict", json={"rows": [row]}).status_code == 200
    consumer = tmp_path / "billing.yaml"
    consumer.write_text(contract_text("billing", given))
    asked = load_contract(str(consumer)).consumer.interactions[0].request
    assert list(asked.rows) == [row]


@pytest.mark.parametrize(
    ("settings", "entry", "value"),
    [
        ({"source": "Int64"}, {"knots": [1.0, 2.0, 9.0], "below": [1, 5, 6]}, 2),
        ({"source": "Float64", "high": 0.1}, {"knots": [0.1000001], "below": [3]}, 0.1),
        ({"source": "Float64", "low": 2.0, "high": 4.0}, {"knots": [], "below": [], "n": 0}, 3.0),
        ({"source": "Float64", "low": 2.0}, {}, 2.0),
        ({"source": "Float64"}, {}, 0),
        ({"type": "category", "categories": ("a", "b")}, {"counts": {"b": 3, "a": 1}}, "b"),
        ({"type": "category", "categories": ("a", "b")}, {"counts": {}}, "a"),
        ({"type": "category"}, {}, "text"),
        # What is not listed may be names, and none is shown.
        ({"type": "category"}, {"counts": {"ann@example.org": 1, "bob@example.org": 9}}, "text"),
        ({"type": "category", "categories": ("a", "b")}, {"counts": {"c": 3, "b": 1}}, "b"),
    ],
)
def test_a_usual_value(settings: dict[str, Any], entry: dict[str, Any], value: Any) -> None:
    feature = Feature(**{"name": "x", "type": "number", "source": "String", **settings})
    signature = Signature(features=(feature,), problem=MIXED.problem)
    found = usual_row(signature, {"features": {"x": entry}})["x"]
    assert found == value
    assert type(found) is type(value)
