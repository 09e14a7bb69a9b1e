"""What cannot stand in `deploy.guards`: each mistake with its line, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard._kit.errors import Problem, SpecError
from modelyard.spec import load

CLASSIFIER = "{target: y, task: binary, metric: roc_auc, drop: [id]}"
REGRESSION = "{target: y, task: regression}"
CONTRACT = "contract: {y: {allowed: [yes please, no]}}"


def wrong(folder: Path, guards: str, *, model: str = CLASSIFIER, more: str = "", access: str = "") -> list[Problem]:
    (folder / "a.csv").write_text("id,age,city,y\n1,2,x,no\n")
    (folder / "guards.py").write_text(
        "def harmful(batch, *, words=()):\n    return []\n\n\ndef needs(batch, words):\n    return []\n\n\n"
        "def nothing():\n    return []\n"
    )
    path = folder / "modelyard.yaml"
    path.write_text(
        f"project: p\ndata:\n  t: {{from: a.csv, columns: [id, age, city, y], {more or 'contract: {}'}}}\n"
        f"model: {model}\ndeploy:\n  access: {{{access}}}\n  guards:\n    {guards}\n"
    )
    try:
        load(path)
    except SpecError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    ("guards", "model", "more", "code", "says", "hint"),
    [
        ("coerce: [agee]", CLASSIFIER, "", "spec-contradiction", '"agee"', "`age`"),
        ("coerce: [y]", CLASSIFIER, "", "spec-contradiction", '"y" is the target', "take it out"),
        ("coerce: [id]", CLASSIFIER, "", "spec-contradiction", 'in "model.drop"', "take it out"),
        ("confidence: {at_least: 0.6}", REGRESSION, "", "spec-contradiction", "about classes", "`within`"),
        ("within: {low: 0}", CLASSIFIER, "", "spec-contradiction", "about numbers", "`confidence`"),
        ("within: {do: clip}", REGRESSION, "", "spec-missing-field", "neither", "low"),
        ("within: {low: 2, high: 1}", REGRESSION, "", "spec-contradiction", "ends before it", "smaller"),
        ("outlier: {do: quarantine}", CLASSIFIER, "", "spec-contradiction", "none is declared", "fallback"),
        ("confidence: {at_least: 0.6, else: fallback}", CLASSIFIER, "", "spec-contradiction", "none is", "fallback"),
        ("checks: [{use: labels, params: {allowed: [no]}, do: fallback}]", CLASSIFIER, "", "spec-contradiction",
         "none is declared", "fallback"),
        ("fallback: maybe", CLASSIFIER, CONTRACT, "spec-contradiction", '"maybe" is none of the classes', "yes please"),
        ("fallback: a lot", REGRESSION, "", "spec-bad-value", "no number", "number"),
        ("checks: [{use: blocklst}]", CLASSIFIER, "", "spec-unknown-guard", '"blocklst"', "`blocklist`"),
        ("checks: [{use: blocklist}]", CLASSIFIER, "", "spec-bad-value", "neither terms nor patterns", "terms"),
        ("checks: [{use: blocklist, params: {term: [x]}}]", CLASSIFIER, "", "spec-bad-value", "`term`", "terms"),
        ("checks: [{use: blocklist, params: {patterns: ['(a']}}]", CLASSIFIER, "", "spec-bad-value",
         "unclosed", "backslash"),
        ("checks: [{use: blocklist, params: {patterns: ['(?=a)b']}}]", CLASSIFIER, "", "spec-bad-value",
         "look-around", "without looking"),
        ("checks: [{use: labels}]", CLASSIFIER, "", "spec-bad-value", "allowed", "allowed"),
        ("checks: [{use: guard.py:harmful}]", CLASSIFIER, "", "spec-missing-file", '"guard.py"', "guards.py"),
        ("checks: [{use: guards.py:harmfull}]", CLASSIFIER, "", "spec-missing-function", "harmfull", "harmful"),
        ("checks: [{use: ../guards.py:harmful}]", CLASSIFIER, "", "spec-path-outside", "leads out", "whole path"),
        ("checks: [{use: guards.py:harmful, params: {word: [x]}}]", CLASSIFIER, "", "spec-guard-parameter",
         'takes no "word"', "`words`"),
        ("checks: [{use: guards.py:needs}]", CLASSIFIER, "", "spec-guard-parameter", 'needs "words"', "params"),
        ("checks: [{use: guards.py:nothing}]", CLASSIFIER, "", "spec-guard-parameter", "takes no batch", "batch"),
        ("checks: [{use: rm -rf /}]", CLASSIFIER, "", "spec-bad-value", "FILE.py:FUNCTION", "for example"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, guards: str, model: str, more: str, code: str, says: str, hint: str
) -> None:
    (problem,) = wrong(tmp_path, guards, model=model, more=more)
    assert problem.code == code, problem
    assert says in problem.message
    assert hint in problem.hint
    assert problem.where.endswith("modelyard.yaml:8")


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    checks = "[{use: blocklist, params: {terms: [idiot], patterns: ['(a+)+$'], columns: [city]}, do: warn}, "
    checks += "{use: guards.py:harmful, params: {words: [x]}, timeout: 20ms, on_error: accept, above: 0.8}]"
    assert wrong(tmp_path, f"checks: {checks}\n    coerce: [age]\n    fallback: no", more=CONTRACT) == []


def test_who_may_not_ask_is_shown_nothing(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path, "{}", access="roles: [admin], show: {analyst: label}")
    assert (problem.code, "may not ask" in problem.message) == ("spec-contradiction", True)
    (problem,) = wrong(tmp_path, "{}", access="show: {viewer: label}")
    assert ('"viewer" may not ask' in problem.message, "analyst" in problem.hint) == (True, True)
    (problem,) = wrong(tmp_path, "{}", access="show: {analist: label}")
    assert (problem.code, problem.hint) == ("spec-bad-value", "did you mean `analyst`?")


def test_a_number_has_no_label_to_be_shown_alone(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path, "{}", model=REGRESSION, access="show: {analyst: label}")
    assert (problem.code, problem.where) == ("spec-contradiction", f"{tmp_path}/modelyard.yaml:6")
    assert "numbers" in problem.message
    assert "rounded" in problem.hint
    assert wrong(tmp_path, "{}", model=REGRESSION, access="show: {analyst: rounded(1)}") == []
    assert wrong(tmp_path, "{}", access="show: {analyst: label}") == []


@pytest.mark.parametrize(
    "issuer", ["http://evil.example", "login.example.org", "ftp://here", "https://", "https://[half/x", "http://127.1"]
)
def test_an_issuer_is_asked_over_https_or_on_this_machine(tmp_path: Path, issuer: str) -> None:
    (problem,) = wrong(tmp_path, "{}", access=f"oidc: {{issuer: '{issuer}', audience: x}}")
    assert (problem.code, problem.where) == ("spec-bad-value", f"{tmp_path}/modelyard.yaml:6")
    assert issuer in problem.message
    assert "https://" in problem.hint


@pytest.mark.parametrize("issuer", ["https://login.example.org/realms/ml", "http://127.0.0.1:80", "http://localhost/a"])
def test_an_issuer_that_may_be_asked_is_taken(tmp_path: Path, issuer: str) -> None:
    assert wrong(tmp_path, "{}", access=f"oidc: {{issuer: '{issuer}', audience: x}}") == []


def test_a_subject_that_no_certificate_has_is_told(tmp_path: Path) -> None:
    (problem,) = wrong(tmp_path, "{}", access="certificates: {'CN=job,O=Own, Ltd': analyst}")
    assert (problem.code, problem.where) == ("spec-bad-value", f"{tmp_path}/modelyard.yaml:6")
    assert "`CN=job,O=Own\\, Ltd`" in problem.hint
    (problem,) = wrong(tmp_path, "{}", access="certificates: {'CN=job.example.org,O=Own, Ltd.': analyst}")
    assert problem.where == f"{tmp_path}/modelyard.yaml:6"
    (problem,) = wrong(tmp_path, "{}", access="certificates: {job: analyst}")
    assert "CN=job" in problem.hint
    for right in ("'CN=job,O=Own\\, Ltd'", "'CN=job'", "'C=DE,CN=a=b, c=d'"):
        assert wrong(tmp_path, "{}", access=f"certificates: {{{right}: analyst}}") == []


@pytest.mark.parametrize(("columns", "hint"), [("[agee]", "`age`"), ("[y]", "take it out"), ("[id]", "take it out")])
def test_redacted_columns_are_inputs_of_the_model(tmp_path: Path, columns: str, hint: str) -> None:
    found = wrong(tmp_path, "unseen: reject\n  requests: {redact: " + columns + "}")
    assert [(one.code, one.where) for one in found] == [("spec-contradiction", f"{tmp_path}/modelyard.yaml:9")]
    assert hint in found[0].hint
    assert wrong(tmp_path, "unseen: reject\n  requests: {redact: [age]}") == []
