"""`modelyard card`: whose card it is, and where it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.cards.build import build
from modelyard.cards.render import render
from modelyard.cards.verify import compare_file
from modelyard.cli.main import main
from modelyard.records import Card, Deployment, Draft, ModelVersion, plain
from modelyard.store import open_store

OLD, NEW = "run-old", "run-new"


def record(project: Path, run: str, card: Card) -> None:
    store = open_store(project)
    store.ledger.append(
        Draft(kind="run.started", run=run, payload={"project": "income", "plan": ""}),
        Draft(
            kind="step.finished",
            run=run,
            step="card",
            payload={"key": f"key-{run}", "seconds": 0.1, "outputs": {"card": plain(card)}},
        ),
        Draft(kind="run.finished", run=run, payload={"status": "succeeded"}),
    )
    store.close()


def point(project: Path, model: ModelVersion, revision: int = 1, endpoint: str = "income") -> None:
    store = open_store(project)
    move = Deployment(endpoint=endpoint, alias="champion", model=model, revision=revision)
    store.ledger.append(Draft(kind="alias.moved", payload={"deployment": plain(move)}))
    store.close()


@pytest.fixture
def two(facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Card, Card]:
    """A project with an older card, whose model is the champion, and a newer one."""
    monkeypatch.chdir(tmp_path)
    old = build(**facts)
    version = msgspec.structs.replace(facts["model"].version, digest="ef" * 32)
    new = build(**{**facts, "model": type(facts["model"])(version)})
    record(tmp_path, OLD, old)
    record(tmp_path, NEW, new)
    point(tmp_path, facts["model"].version)
    return old, new


def test_the_champions_card_is_printed(two: tuple[Card, Card], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ([], ["income"], ["abababab"], [OLD]):
        assert main(["card", *name, "--format", "md"]) == 0
        assert capsys.readouterr().out == render(two[0], "md")


def test_a_run_or_a_model_that_is_no_champion_has_its_card_too(
    two: tuple[Card, Card], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (NEW, "efefef"):
        assert main(["card", name, "--format", "json"]) == 0
        assert msgspec.json.decode(capsys.readouterr().out, type=Card) == two[1]


def test_a_file_is_written_in_the_format_of_its_name(
    two: tuple[Card, Card], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    for form in ("html", "md", "json"):
        file = tmp_path / "out" / f"card.{form}"
        assert main(["card", "-o", str(file)]) == 0
        assert capsys.readouterr().out == f"{file}\n"
        assert compare_file(file, two[0]) == []


def test_a_folder_that_is_not_there_is_not_made(
    two: tuple[Card, Card], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reports").mkdir()
    assert main(["card", "-o", "report/card.md"]) == 2
    said = capsys.readouterr().err
    assert "error[output-folder]" in said
    assert "did you mean `reports`?" in said
    assert not Path("report").exists()


def test_without_options_the_page_is_written_and_the_newest_cards_files_stay_its_own(
    two: tuple[Card, Card], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", NEW]) == 0
    newest = Path(capsys.readouterr().out.strip())
    assert compare_file(newest, two[1]) == []
    assert main(["card"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page != newest
    assert compare_file(page, two[0]) == []
    assert compare_file(newest, two[1]) == []


def test_the_newest_card_is_shown_where_there_is_no_champion(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path, NEW, card)
    assert main(["card", "--format", "md"]) == 0
    assert capsys.readouterr().out == render(card, "md")


def test_what_is_missing_is_said_beside_the_card(
    facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    facts["human"]["ethics"] = []
    record(tmp_path, NEW, build(**facts))
    assert main(["card", "--format", "md"]) == 0
    assert "card.ethics" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["incme"], "did you mean `income`?"),
        (["run-nowhere"], "no run `run-nowhere`"),
        (["0123456789"], "no run made a card for model"),
        (["-o", "card.docx"], "no card format `docx`"),
    ],
)
def test_a_wrong_name_is_answered_with_the_next_step(
    words: list[str], told: str, two: tuple[Card, Card], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_project_without_a_card_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    open_store(tmp_path).close()
    assert main(["card"]) == 2
    assert "no run has made a card yet" in capsys.readouterr().err
