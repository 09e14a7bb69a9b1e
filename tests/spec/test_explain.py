"""Every field says what it is, and what it says is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard._kit.errors import NotFound, Problem, SpecError
from modelyard.cli.main import main
from modelyard.spec import explain, load, paths


@pytest.mark.parametrize("path", paths())
def test_every_field_is_explained_and_its_example_is_right(path: str, tmp_path: Path) -> None:
    found = explain(path)
    assert found.path == path
    assert found.about.endswith(".")
    assert found.example
    # The example stands in the file as it is printed; what else the file needs is not its business.
    file = tmp_path / "modelyard.yaml"
    file.write_text(found.example + "\n")
    problems: list[Problem] = []
    try:
        load(file, files=False)
    except SpecError as error:
        problems = list(error.problems)
    assert [p for p in problems if p.code not in ("spec-missing-field", "spec-contradiction")] == []


def test_the_text_names_default_and_example() -> None:
    found = explain("model.split.test")
    assert found.default == "20%"
    assert found.example == "model:\n  split:\n    test: 20%"
    assert "a share" in found.takes
    assert explain("model.target").required
    assert explain("data.from").required


@pytest.mark.parametrize(
    ("path", "means"),
    [
        ("data.from", "data.NAME.from"),
        ("data.applicants.from", "data.applicants.from"),
        ("data.contract.range", "data.NAME.contract.NAME.range"),
        ("data.applicants.contract.age.range", "data.applicants.contract.age.range"),
        ("checks.0.gap.across", "checks.gap.across"),
        ("trials", "model.search.trials"),
        ("split.by", "model.split.by"),
        ("", ""),
    ],
)
def test_names_of_tables_and_columns_may_be_left_out(path: str, means: str) -> None:
    assert explain(path).path == means


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("modl.split", "`model.split`"),
        ("model.splt", "`model.split`"),
        ("model.split.bye", "`model.split.by`"),
        ("targt", "`model.target`"),
        ("seed", "`model.seed`"),
        ("zzzz", "modelyard explain"),
        ("model.split.by.more", "model.split.by"),
    ],
)
def test_an_unknown_field_names_the_near_ones(path: str, hint: str) -> None:
    with pytest.raises(NotFound) as error:
        explain(path)
    assert hint in error.value.problem.hint


def test_fields_below_say_what_they_are_when_they_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    found = explain("checks.beats")
    assert found.defaults == {"champion": "true", "baseline": "true", "margin": "0", "blocking": "true"}
    assert main(["explain", "checks.beats"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the most frequent class or the mean. Left out: true." in text
    assert "`champion: false`" in explain("checks.beats.champion").about


def test_sections_list_their_fields() -> None:
    assert list(explain("model.search").fields) == ["trials", "minutes", "folds"]
    assert "roc_auc" in explain("checks").fields
    assert "from" in explain("data").fields
