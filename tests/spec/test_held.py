"""What `deploy` names is held against the model that answers, where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modelyard.cli.main import main
from modelyard.records import (
    Column,
    Deployment,
    Draft,
    Feature,
    ModelVersion,
    Problem,
    Signature,
    TableVersion,
    plain,
)
from modelyard.store import LocalStore, open_store

MODEL = ModelVersion(
    name="p",
    digest="ab" * 32,
    family="linear",
    params={},
    format="onnx",
    signature=Signature(
        features=(
            Feature(name="age", type="number", source="Int64"),
            Feature(name="city", type="category", source="String"),
        ),
        problem=Problem(task="regression", target="y", metric="rmse"),
    ),
    trained_on=(),
    environment="",
)
HEAD = "project: p\ndata: {t: {from: a.csv}}\nmodel: {target: y}\ndeploy:\n"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStore]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("age,city,postcode,y\n1,rome,2,3\n")
    with open_store(tmp_path) as opened:
        yield opened


def champion(store: LocalStore, model: ModelVersion = MODEL) -> None:
    to = Deployment(endpoint="p", alias="champion", model=model, revision=1, reason="test")
    store.ledger.append(Draft(kind="alias.moved", actor="user:ana", payload={"deployment": plain(to)}))


def fitted(store: LocalStore, model: ModelVersion = MODEL) -> None:
    payload = {"key": "k", "outputs": {"model": plain(model)}, "seconds": 0.0}
    store.ledger.append(Draft(kind="step.finished", run="run-1", step="fit", payload=payload))


def table(store: LocalStore) -> None:
    columns = tuple(Column(name=name, type="String") for name in ("age", "city", "postcode", "y"))
    made = TableVersion(name="features.table", digest="cd" * 32, rows=1, columns=columns, parents=(), address="x")
    payload = {"key": "t", "outputs": {"table": plain(made)}, "seconds": 0.0}
    store.ledger.append(Draft(kind="step.finished", run="run-1", step="features", payload=payload))


def told(deploy: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    Path("modelyard.yaml").write_text(HEAD + deploy)
    assert main(["check", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    said = json.loads(out)
    assert said["ok"]
    assert said["problems"] == []
    return list(said["warnings"])


@pytest.mark.parametrize(
    ("deploy", "line", "says", "hint"),
    [
        ("  guards:\n    coerce: [age, agee]\n", 6, '"coerce" names "agee"', "did you mean `age`?"),
        ("  requests:\n    redact:\n      - city\n      - cty\n", 8, '"redact" names "cty"', "did you mean `city`?"),
        ("  requests: {redact: [zzz]}\n", 5, '"redact" names "zzz"', "it takes: age, city"),
        ("  requests: {redact: [postcode]}\n", 5, '"postcode"', "the table has it"),
        (
            "  guards:\n    checks:\n      - use: blocklist\n        params: {terms: [x], columns: [ctiy]}\n",
            8,
            '"columns" names "ctiy"',
            "did you mean `city`?",
        ),
        (
            "  guards: {checks: [{use: blocklist, params: {terms: [x], columns: [age]}}]}\n",
            5,
            "no text column",
            "it takes: city",
        ),
    ],
)
def test_a_name_that_the_champion_does_not_take_is_warned_of(
    store: LocalStore, capsys: pytest.CaptureFixture[str], deploy: str, line: int, says: str, hint: str
) -> None:
    champion(store)
    table(store)
    (found,) = told(deploy, capsys)
    assert found["code"] == "spec-column-not-taken"
    assert found["where"] == f"modelyard.yaml:{line}"
    assert says in found["message"]
    assert "champion `abababababab`" in found["message"]
    assert hint in found["hint"]
    assert main(["check"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("modelyard.yaml: ok")
    assert f"warning[spec-column-not-taken] modelyard.yaml:{line}: " in err
    assert "\n  hint: " in err


def test_what_is_right_is_not_warned_of(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    champion(store)
    checks = "checks: [{use: blocklist, params: {terms: [x], columns: [city]}}, {use: unusual}]"
    assert told(f"  requests: {{redact: [age]}}\n  guards: {{coerce: [age, city], {checks}}}\n", capsys) == []


def test_without_a_version_nothing_is_said(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    table(store)
    assert told("  requests: {redact: [zzz]}\n", capsys) == []
    # That of another endpoint is none of ours.
    fitted(store, msgspec.structs.replace(MODEL, name="other"))
    assert told("  requests: {redact: [zzz]}\n", capsys) == []


def test_a_version_that_did_not_pass_the_gate_is_better_than_none(
    store: LocalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted(store)
    (found,) = told("  requests: {redact: [zzz]}\n", capsys)
    assert "newest version `abababababab`" in found["message"]


def test_a_store_that_cannot_be_read_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("y\n1\n")
    (tmp_path / ".modelyard").mkdir()
    (tmp_path / ".modelyard" / "ledger.db").write_text("this is none, whatever its name may say" * 100)
    Path("modelyard.yaml").write_text(HEAD + "  requests: {redact: [zzz]}\n")
    assert main(["check"]) == 0
    assert "what `deploy` names was not held against the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fallback", "hint"),
    [("Yes", "did you mean `yes`?"), ("3", "it answers: no, yes"), ("yes", "")],
)
def test_a_fallback_that_the_champion_never_answers_is_warned_of(
    store: LocalStore, capsys: pytest.CaptureFixture[str], fallback: str, hint: str
) -> None:
    problem = Problem(task="binary", target="y", metric="auc", classes=("no", "yes"))
    signature = msgspec.structs.replace(MODEL.signature, problem=problem)
    champion(store, msgspec.structs.replace(MODEL, signature=signature))
    found = told(f"  guards: {{fallback: '{fallback}', confidence: {{at_least: 0.6, else: fallback}}}}\n", capsys)
    assert [(one["code"], one["where"]) for one in found] == [("spec-class-not-answered", "modelyard.yaml:5")] * bool(
        hint
    )
    assert [one["hint"] for one in found] == [hint] * bool(hint)


def test_a_number_is_no_class(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    champion(store)
    assert told("  guards: {fallback: '3', within: {low: 0, do: fallback}}\n", capsys) == []
