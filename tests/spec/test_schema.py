"""The JSON Schema and the reader say the same of a file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from modelyard._kit.errors import SpecError
from modelyard.spec import json_schema, load
from modelyard.spec.sample import inline

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*/modelyard.yaml"))
TEMPLATES = sorted((Path(__file__).resolve().parents[2] / "src/modelyard/cli/templates").glob("*/modelyard.yaml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def refuses(data: Any, path: Path) -> bool:
    """Whether the reader finds something, files and contradictions aside."""
    path.write_text(inline(data))
    try:
        load(path, files=False)
    except SpecError as error:
        return any(p.code != "spec-contradiction" for p in error.problems)
    return False


def test_the_schema_is_a_schema_and_holds_nothing_of_ours(validator: Any) -> None:
    text = str(validator.schema)
    for ours in ("'form'", "'say'", "'noun'", r"\Z"):
        assert ours not in text
    assert validator.schema["$schema"].startswith("https://json-schema.org/")


def test_patterns_end_as_editors_know_it(validator: Any) -> None:
    fields = validator.schema["$defs"]["Declaration"]["properties"]
    assert fields["project"]["pattern"].endswith("$")
    assert fields["data"]["propertyNames"]["pattern"].endswith("$")


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("project",), "income\n"),
        (("features",), "features.py:build\n"),
        (("data", "applicants\n"), {"from": "data/a.csv"}),
        (("deploy", "endpoint"), "income\n"),
    ],
)
def test_a_line_break_behind_a_name_is_refused(right: str, tmp_path: Path, way: tuple[str, ...], value: Any) -> None:
    data = yaml.safe_load(right)
    node: Any = data
    for key in way[:-1]:
        node = node[key]
    node[way[-1]] = value
    assert refuses(data, tmp_path / "modelyard.yaml")


def test_it_takes_the_right_file(validator: Any, right: str, small: str) -> None:
    for text in (right, small):
        assert list(validator.iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.parent.name)
def test_it_takes_the_examples(path: Path, validator: Any, tmp_path: Path) -> None:
    data = yaml.safe_load(path.read_text())
    assert list(validator.iter_errors(data)) == []
    assert load(path, files=False).project == data["project"]


# A wrong file: path of keys, and what is put there.
WRONG: list[tuple[tuple[str | int, ...], Any]] = [
    (("purpos",), "x"),
    (("model", "targt"), "x"),
    (("data", "applicants", "fro"), "x"),
    (("data", "applicants", "contract", "age", "rnge"), [1, 2]),
    (("checks", 0, "roc_auc", "at_lest"), 1),
    (("checks", 0), {"evasion": {}}),
    (("checks", 0), {"mae": {"at_most": 1}, "rmse": {"at_most": 1}}),
    (("checks", 0), "evasion"),
    (("checks", 0), {}),
    (("card", "intended_use", "fr"), "x"),
    (("deploy", "access", "rolls"), ["analyst"]),
    (("monitor", "drift", "ps"), 0.1),
    (("owners", 0, "tem"), "x"),
    (("model", "split", "by"), "tme"),
    (("model", "split", "test"), 20),
    (("model", "split", "test"), "some"),
    (("model", "search", "trials"), "many"),
    (("model", "search", "trials"), 0),
    (("model", "candidates"), ["catboost"]),
    (("model", "candidates"), []),
    (("model", "metric"), "roc_auk"),
    (("model", "positive"), ["a"]),
    (("model", "target"), None),
    (("data", "applicants", "fresh_within"), "2 days"),
    (("data", "applicants", "fresh_within"), 2),
    (("data", "applicants", "contract", "age", "range"), [1]),
    (("data", "applicants", "from"), []),
    (("data", "applicants", "key"), {"a": 1}),
    (("data", "my table"), {"from": "a.csv"}),
    (("data",), {}),
    (("deploy", "endpoint"), "a b"),
    (("deploy", "access", "roles"), ["analist"]),
    (("features",), "features.py"),
    (("project",), 12),
]
RIGHT: list[tuple[tuple[str | int, ...], Any]] = [
    (("model", "split", "test"), 0.3),
    (("model", "split", "test"), "33.3 %"),
    (("model", "positive"), 1),
    (("model", "positive"), True),
    (("data", "applicants", "from"), ["a.csv", "b.csv"]),
    (("data", "applicants", "contract", "age"), None),
    (("data", "applicants", "contract", "age", "range"), [0, None]),
    (("data", "applicants", "cursor"), None),
    (("checks", 0), "parity"),
    (("checks", 0), {"parity": None}),
    (("deploy",), None),
    (("monitor",), {}),
    (("card", "ethics"), ["a", "b"]),
]


def put(text: str, path: tuple[str | int, ...], value: Any) -> Any:
    data = copy.deepcopy(yaml.safe_load(text))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


@pytest.mark.parametrize(("path", "value"), WRONG, ids=str)
def test_both_refuse(path: tuple[str | int, ...], value: Any, validator: Any, right: str, tmp_path: Path) -> None:
    data = put(right, path, value)
    assert list(validator.iter_errors(data)), "the schema takes it"
    assert refuses(data, tmp_path / "modelyard.yaml"), "the reader takes it"


@pytest.mark.parametrize(("path", "value"), RIGHT, ids=str)
def test_both_take(path: tuple[str | int, ...], value: Any, validator: Any, right: str, tmp_path: Path) -> None:
    data = put(right, path, value)
    assert list(validator.iter_errors(data)) == []
    assert not refuses(data, tmp_path / "modelyard.yaml")


def test_hover_texts_and_examples_are_in_it(validator: Any) -> None:
    split = validator.schema["$defs"]["Split"]["properties"]
    assert "test" in split["by"]["description"]
    assert split["test"]["default"] == "20%"
    assert split["test"]["examples"] == ["20%"]
