"""What cannot stand in `deploy.consumers`, nor in the contract files that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard._kit.errors import Problem, SpecError
from modelyard.pipeline.compose import compose
from modelyard.spec import load

RIGHT = "consumer: billing\nendpoint: p\ninteractions:\n  - {name: x, request: {path: /v2/health/ready}}\n"


def written(folder: Path, consumers: str, *, model: str = "model: {target: y}") -> Path:
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / "contracts").mkdir(exist_ok=True)
    path = folder / "modelyard.yaml"
    path.write_text(f"project: p\ndata: {{t: {{from: a.csv}}}}\n{model}\ndeploy:\n  consumers: {consumers}\n")
    return path


def wrong(path: Path) -> list[Problem]:
    try:
        load(path)
    except SpecError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("consumers", ["contracts/*.yaml", "[contracts/billing.yaml]", "[contracts/b*, contracts/*]"])
def test_a_step_holds_the_files_that_are_named_before_the_gate(tmp_path: Path, consumers: str) -> None:
    path = written(tmp_path, consumers)
    (tmp_path / "contracts" / "billing.yaml").write_text(RIGHT)
    steps = {step.name: step for step in compose(load(path)).steps}
    assert "check.consumers" in steps["gate"].inputs["results"]
    assert "check.consumers" in steps["card"].inputs["results"]
    assert steps["check.consumers"].inputs == {"model": "fit#model"}


def test_without_any_there_is_no_step(tmp_path: Path) -> None:
    assert "check.consumers" not in {step.name for step in compose(load(written(tmp_path, "[]"))).steps}


@pytest.mark.parametrize(
    ("consumers", "text", "code", "says", "hint"),
    [
        ("contracts/*.yaml", None, "spec-missing-file", "matches no file", "is empty"),
        ("contracts/biling.yaml", RIGHT, "spec-missing-file", "matches no file", "contracts/billing.yaml"),
        ("../contracts/*.yaml", RIGHT, "spec-path-outside", "leads out", "whole path"),
        ("contracts", RIGHT, "spec-contradiction", "is a folder", "`contracts/*.yaml`"),
        ("' '", RIGHT, "spec-bad-value", 'a name in "consumers" is empty', "contracts/*.yaml"),
        ("contracts/*", RIGHT.replace("name:", "nam:"), "spec-unknown-field", "billing.yaml:4", "name"),
        ("contracts/*", "- 1\n", "spec-not-a-mapping", "contracts/billing.yaml:1", "begin"),
        ("contracts/*", RIGHT.replace(": p\n", ": q\n"), "contract-endpoint", "relies on `q`", "this endpoint"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, consumers: str, text: str | None, code: str, says: str, hint: str
) -> None:
    path = written(tmp_path, consumers)
    if text is not None:
        (tmp_path / "contracts" / "billing.yaml").write_text(text)
    found = wrong(path)
    assert found
    assert found[0].code == code, found
    assert says in found[0].message
    assert hint in found[0].hint
    assert found[0].where.endswith("modelyard.yaml:5")
    # Verbs that do not train do without the files.
    load(path, files=False)


def test_a_file_that_several_patterns_find_is_told_once(tmp_path: Path) -> None:
    path = written(tmp_path, "[contracts/*.yaml, contracts/b*]")
    (tmp_path / "contracts" / "billing.yaml").write_text(RIGHT.replace("consumer:", "consumr:"))
    messages = [problem.message for problem in wrong(path)]
    assert messages
    assert all("billing.yaml:1" in message for message in messages)
    assert len(set(messages)) == len(messages)


def test_consumers_need_a_model(tmp_path: Path) -> None:
    path = written(tmp_path, "contracts/*", model="")
    (tmp_path / "contracts" / "billing.yaml").write_text(RIGHT)
    assert "consumers rely on a model, and the file declares none" in {problem.message for problem in wrong(path)}
