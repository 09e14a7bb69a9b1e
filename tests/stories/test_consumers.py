"""What consumers rely on is held against each new version before anybody meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import modelyard
from modelyard.cli.main import main
from modelyard.records import CheckResult, values_of
from tests.stories.conftest import COLUMNS, LOGISTIC
from tests.web.conftest import client_of

PLAIN = LOGISTIC.replace("  - beats: {margin: -0.05}\n", "")
WITH = PLAIN + "deploy: {consumers: contracts/*.yaml}\n"
BOTH = ["benign", "malignant"]


def contract(path: Path, *, known: list[str] = BOTH, wants: dict[str, Any] | None = None, **more: Any) -> None:
    """Write what a consumer relies on: the request has every column that the first version takes."""
    row = {**dict.fromkeys(COLUMNS, 15.0), "grain": "fine"}
    path.parent.mkdir(exist_ok=True)
    given = {
        "consumer": "the ward",
        "interactions": [
            {"name": "is it there", "request": {"path": "/v2/health/ready"}},
            {
                "name": "ask for one sample",
                "request": {"rows": [row]},
                "answer": {"fields": {"/predictions/*/label": wants or {"one_of": known}}},
            },
        ],
        **more,
    }
    path.write_text(yaml.safe_dump(given, sort_keys=False))


def results(folder: Path) -> list[CheckResult]:
    with modelyard.open_project(folder) as store:
        run = store.ledger.runs(limit=1)[0]
        found = store.ledger.run(run.id)
        assert found is not None
        return [one for one in values_of(found, CheckResult) if one.check.type == "consumer"]


@pytest.fixture
def folder(ran: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (ran / "modelyard.yaml").write_text(WITH)
    monkeypatch.chdir(ran)
    contract(ran / "contracts" / "ward.yaml")
    return ran


@pytest.mark.thorough
def test_a_consumer_of_a_stage_is_asked_for_under_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "modelyard.yaml").write_text(WITH.replace("deploy: {", "deploy: {stages: {dev: {}, prod: {}}, "))
    asks = [{"name": "metadata", "request": {"path": "/v2/models/tumours-prod"}}]
    contract(folder / "contracts" / "ward.yaml", endpoint="tumours-prod", interactions=asks)
    contract(folder / "contracts" / "clinic.yaml", consumer="the clinic")
    assert main(["run"]) == 0
    assert [result.status for result in results(folder)] == ["passed", "passed"]
    capsys.readouterr()
    # Nothing answers in prod yet, and what would come is held against its contract.
    assert main(["contract", "check"]) == 0
    assert "every promise holds" in capsys.readouterr().err
    asks[0]["request"] = {"path": "/v2/models/tumours-dev"}
    contract(folder / "contracts" / "ward.yaml", endpoint="tumours-prod", interactions=asks)
    assert main(["contract", "check"]) == 1


@pytest.mark.thorough
def test_a_version_that_breaks_a_promise_is_not_deployed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 0
    said = capsys.readouterr().out
    assert "consumer.the-ward" in said
    (result,) = results(folder)
    assert (result.status, result.evidence.value, result.evidence.n) == ("passed", 0, 2)
    assert result.evidence.model
    # The card shows it as every other claim.
    assert main(["card", "--format", "md"]) == 0
    assert "consumer.the-ward" in capsys.readouterr().out
    assert main(["verify"]) == 0
    assert main(["plan"]) == 0
    assert "check.consumers" in capsys.readouterr().out

    with modelyard.open_project(folder) as store:
        before = store.ledger.alias("tumours", "champion")
    # The producer drops a column that the consumer sends.
    spec = (folder / "modelyard.yaml").read_text()
    (folder / "modelyard.yaml").write_text(spec.replace("target: diagnosis", "target: diagnosis\n  drop: [worst_area]"))
    assert main(["run"]) == 1
    said = capsys.readouterr().err
    assert "error[check-failed]" in said
    assert "contracts/ward.yaml:6: `ask for one sample`" in said
    assert "`worst_area`" in said
    with modelyard.open_project(folder) as store:
        assert store.ledger.alias("tumours", "champion") == before
    (result,) = results(folder)
    assert result.status == "failed"
    (broken,) = result.evidence.details["broken"]
    assert (broken["interaction"], broken["field"], broken["wanted"]) == ("ask for one sample", "status", "200")
    assert main(["show", "checks"]) == 0
    assert "consumer.the-ward" in capsys.readouterr().out
    with modelyard.open_project(folder) as store, client_of(store) as pages:
        page = pages.get("/checks")
        assert page.status_code == 200
        assert "consumer.the-ward" in page.text


def test_what_a_consumer_does_not_know_stops_the_run_and_the_file_is_seen_to_change(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run"]) == 0
    contract(folder / "contracts" / "lab.yaml", known=["benign"], consumer="the ward")
    capsys.readouterr()
    assert main(["plan", "--json"]) == 0
    steps = {one["step"]: one for one in json.loads(capsys.readouterr().out)}
    assert steps["check.consumers"]["verdict"] == "run"
    assert steps["fit"]["verdict"] == "cached"
    assert main(["run"]) == 1
    said = capsys.readouterr().err
    assert "contracts/lab.yaml" in said
    assert '`ask for one sample`: /predictions/0/label: wanted one of "benign", got "malignant"' in said
    # Two files of one consumer have a result each.
    assert [one.check.name for one in results(folder)] == ["consumer.the-ward", "consumer.the-ward.2"]
    contract(folder / "contracts" / "lab.yaml")
    assert main(["run"]) == 0


@pytest.mark.thorough
def test_guards_of_the_project_and_roles_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "guards.py").write_text("def strict(batch):\n    return [True] * len(batch)\n")
    spec = PLAIN + "deploy:\n  consumers: [contracts/ward.yaml]\n  guards: {checks: [{use: guards.py:strict}]}\n"
    (folder / "modelyard.yaml").write_text(spec)
    assert main(["run"]) == 1
    assert "got null" in capsys.readouterr().err
    # Who takes no text but two is not safe with a guard that may give none, whatever it does today.
    (folder / "guards.py").write_text("def strict(batch):\n    return [False] * len(batch)\n")
    assert main(["run"]) == 1
    assert "it may be null" in capsys.readouterr().err
    # Of who takes any text it counts what the code of the guard does with it.
    text = {"type": "string"}
    contract(folder / "contracts" / "ward.yaml", wants=text)
    assert main(["run"]) == 0
    (folder / "guards.py").write_text("def strict(batch):\n    return [True for _ in range(len(batch))]\n")
    capsys.readouterr()
    assert main(["run"]) == 1
    assert "got null" in capsys.readouterr().err
    (folder / "guards.py").write_text("def strict(batch):\n    return [False] * len(batch)\n")
    (folder / "modelyard.yaml").write_text(spec + "  access: {roles: [operator]}\n")
    capsys.readouterr()
    assert main(["run"]) == 1
    assert "403" in capsys.readouterr().err
    contract(folder / "contracts" / "ward.yaml", wants=text, role="operator")
    assert main(["run"]) == 0
