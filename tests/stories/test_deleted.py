"""Somebody deletes all that a project has made: the next run makes it again, and says what it cannot make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import modelyard
from modelyard.cli.main import main
from modelyard.records import CheckResult, values_of
from tests.stories.conftest import LOGISTIC


def beats(folder: Path) -> CheckResult:
    with modelyard.open_project(folder) as store:
        run = store.ledger.run(store.ledger.runs(limit=1)[0].id)
        assert run is not None
        return next(result for result in values_of(run, CheckResult) if result.check.type == "beats")


def steps(folder: Path) -> dict[str, str]:
    with modelyard.open_project(folder) as store:
        run = store.ledger.run(store.ledger.runs(limit=1)[0].id)
        assert run is not None
        return {step.name: step.status for step in run.steps}


@pytest.mark.thorough
def test_a_run_goes_on_without_the_bundle_of_the_champion_before(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    with modelyard.open_project(ran) as store:
        first = store.ledger.alias("tumours", "champion")
    assert first is not None
    # A second model takes the place of the first one, and is compared with it.
    (ran / "modelyard.yaml").write_text(LOGISTIC.replace("split: {test: 30%, seed: 7}", "split: {test: 40%, seed: 8}"))
    assert main(["run"]) == 0
    assert [part["status"] for part in beats(ran).evidence.details["parts"]] == ["passed", "passed"]

    # What was compared stays so: only the bundle of the first is gone, and nothing has to be done for it.
    shutil.rmtree(ran / ".modelyard/blobs/folders" / first.model.address[:2] / first.model.address[2:])
    before = beats(ran)
    assert main(["run"]) == 0
    assert beats(ran) == before
    assert steps(ran)["evaluate.champion"] == "cached"

    for folder in ("blobs/folders", "tables"):
        shutil.rmtree(ran / ".modelyard" / folder)
    capsys.readouterr()
    assert main(["run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    # The ledger has the comparison; it is made again from tables that are gone, as far as it can be.
    result = beats(ran)
    digits = first.model.digest[:12]
    warning = f"nothing was compared with the champion {digits}: its bundle is gone from the store"
    assert result.status == "passed"
    assert result.evidence.details["warning"] == warning
    assert [part["status"] for part in result.evidence.details["parts"]] == ["passed", "skipped"]
    assert "! beats: roc_auc" in said
    assert warning in said
    # Nothing is left to be done, and what is claimed can be measured again.
    assert main(["run"]) == 0
    # Which model to compare with is looked up anew while that one is gone.
    assert {name for name, status in steps(ran).items() if status != "cached"} <= {"champion"}
    capsys.readouterr()
    assert main(["verify"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("✗")] == [
        f"✗ bundle {digits} of step `champion`: no folder `{first.model.address[:12]}` in this store"
    ]
    assert "✓ evidence: measured again from the stored data and model, it is the same" in told
