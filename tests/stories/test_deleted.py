"""Somebody deletes all that a project has made: the next run makes it again, and says what it cannot make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import modelyard
from modelyard.cli.main import main
from modelyard.records import CheckResult, Deployment, ModelVersion, values_of
from tests.stories.conftest import LOGISTIC
from tests.web.conftest import client_of

# Another split: another model to compare. The second has little to learn from, and is worse than the first.
OTHER = LOGISTIC.replace("split: {test: 30%, seed: 7}", "split: {test: 40%, seed: 8}")
WORSE = LOGISTIC.replace("split: {test: 30%, seed: 7}", "split: {test: 90%, seed: 11}").replace(
    "beats: {margin: -0.05}", "beats: {}"
)
WAY_OUT = "`beats: {champion: false}` for the one run that replaces it"


def beats(folder: Path) -> CheckResult:
    with modelyard.open_project(folder) as store:
        run = store.ledger.run(store.ledger.runs(limit=1)[0].id)
        assert run is not None
        return next(result for result in values_of(run, CheckResult) if result.check.type == "beats")


def champion(folder: Path) -> Deployment:
    with modelyard.open_project(folder) as store:
        found = store.ledger.alias("tumours", "champion")
    assert found is not None
    return found


def bundle(folder: Path, model: ModelVersion) -> Path:
    return folder / ".modelyard/blobs/folders" / model.address[:2] / model.address[2:]


def compared(folder: Path) -> dict[str, str]:
    """Return what was compared with, and what came of it."""
    return {part["against"]: part["status"] for part in beats(folder).evidence.details["parts"]}


def steps(folder: Path) -> dict[str, str]:
    with modelyard.open_project(folder) as store:
        run = store.ledger.run(store.ledger.runs(limit=1)[0].id)
        assert run is not None
        return {step.name: step.status for step in run.steps}


@pytest.mark.thorough
def test_what_was_compared_stays_so_without_the_bundle_of_the_model_before(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    first = champion(ran).model
    # A second model takes the place of the first one, and is compared with it.
    (ran / "modelyard.yaml").write_text(OTHER)
    assert main(["run"]) == 0
    second = champion(ran).model
    assert compared(ran) == {"baseline": "passed", "champion": "passed"}

    # Only the bundle of the first is gone, and nothing has to be done for it.
    shutil.rmtree(bundle(ran, first))
    before = beats(ran)
    assert main(["run"]) == 0
    assert beats(ran) == before
    assert steps(ran)["evaluate.champion"] == "cached"

    # All is made again but that one: the model has its place already, so nothing rests on the comparison.
    for folder in ("blobs/folders", "tables"):
        shutil.rmtree(ran / ".modelyard" / folder)
    assert main(["run"]) == 0
    result = beats(ran)
    digits = first.digest[:12]
    assert (result.status, compared(ran)["champion"]) == ("passed", "skipped")
    assert f"the bundle of the one before it, {digits}, is gone from the store" in result.reason
    assert champion(ran).model.digest == second.digest
    # Nothing is left to be done, and what is claimed can be measured again.
    assert main(["run"]) == 0
    # What is gone is looked for anew.
    assert {name for name, status in steps(ran).items() if status != "cached"} <= {"champion", "evaluate.champion"}
    capsys.readouterr()
    assert main(["verify"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("✗")] == [
        f"✗ bundle {digits} of step `champion`: no folder `{first.address[:12]}` in this store"
    ]
    assert "✓ evidence: measured again from the stored data and model, it is the same" in told


@pytest.mark.thorough
def test_a_champion_that_is_gone_is_not_replaced_unseen(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)
    first = champion(ran).model
    saved = ran.parent / "saved"
    shutil.copytree(bundle(ran, first), saved)
    shutil.rmtree(bundle(ran, first))
    (ran / "modelyard.yaml").write_text(WORSE)
    capsys.readouterr()
    assert main(["run"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    digits = first.digest[:12]
    assert f"beats: the bundle of the champion {digits} is gone from the store" in said
    assert WAY_OUT in said
    assert "hint: nothing was released and the champion stays; `beats` says how the run goes on" in said
    assert champion(ran).model == first
    assert (beats(ran).status, compared(ran)) == ("insufficient", {"baseline": "passed", "champion": "insufficient"})
    # Whoever reads the table, the data or the page is told the same.
    assert main(["show", "checks"]) == 0
    assert WAY_OUT in " ".join(capsys.readouterr().out.split())
    assert main(["show", "checks", "--json"]) == 0
    assert WAY_OUT in capsys.readouterr().out
    with modelyard.open_project(ran) as store:
        run = store.ledger.runs(limit=1)[0].id
        page = client_of(store).get(f"/runs/{run}").text
    assert "is gone from the store" in page
    # Running again is not the way out, and says so again.
    assert main(["run"]) == 1
    assert champion(ran).model == first

    # Put back, it is compared with, and it is the better one.
    shutil.copytree(saved, bundle(ran, first))
    assert main(["run"]) == 1
    assert (beats(ran).status, compared(ran)["champion"]) == ("failed", "failed")
    assert steps(ran)["evaluate.champion"] == "succeeded"
    assert champion(ran).model == first


@pytest.mark.thorough
def test_where_all_was_deleted_one_run_replaces_the_champion(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran)
    first = champion(ran).model
    for folder in ("blobs/folders", "tables"):
        shutil.rmtree(ran / ".modelyard" / folder)
    (ran / "modelyard.yaml").write_text(OTHER)
    assert main(["run"]) == 1
    assert (beats(ran).status, champion(ran).model) == ("insufficient", first)
    # The way out, for one run.
    (ran / "modelyard.yaml").write_text(OTHER.replace("beats: {margin: -0.05}", "beats: {champion: false}"))
    assert main(["run"]) == 0
    second = champion(ran).model
    assert (compared(ran), second.digest == first.digest) == ({"baseline": "passed"}, False)
    # With the file as it was, it goes on: the model has its place.
    (ran / "modelyard.yaml").write_text(OTHER)
    assert main(["run"]) == 0
    assert (compared(ran)["champion"], champion(ran).model.digest) == ("skipped", second.digest)
    # A check that only reports lets the next model through, and the card says what could not be told.
    shutil.rmtree(bundle(ran, champion(ran).model))
    (ran / "modelyard.yaml").write_text(LOGISTIC.replace("margin: -0.05", "margin: -0.05, blocking: false"))
    assert main(["run"]) == 0
    assert champion(ran).model.digest != second.digest
    card = " ".join((ran / "cards/tumours.md").read_text().split())
    assert "insufficient" in card
    assert f"the bundle of the champion {second.digest[:12]} is gone from the store" in card
