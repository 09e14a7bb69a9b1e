"""What a right file becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard._kit.errors import NotFound, SpecError
from modelyard.spec import load


def write(project: Path, text: str) -> Path:
    path = project / "modelyard.yaml"
    path.write_text(text)
    return path


def test_every_field_arrives(project: Path, right: str) -> None:
    spec = load(write(project, right))
    assert spec.project == "income"
    assert spec.owners[0].team == "credit"
    source = spec.data["applicants"]
    assert source.from_ == ("data/*.csv",)
    assert source.key == ("id",)
    assert source.fresh_within == 172_800
    assert source.contract["age"].range == (17, 100)
    assert source.contract["income"].allowed == ("<=50K", ">50K")
    assert source.bad_rows == "quarantine"
    assert spec.model.split.test == pytest.approx(0.2)
    assert spec.model.families == ("linear", "random_forest", "hist_gradient_boosting", "lightgbm")
    assert spec.model.search.minutes == 5
    assert spec.card.intended_use.for_ == ("a",)
    assert spec.card.ethics == ("Somebody may be harmed.",)
    assert spec.deploy.access.per_minute == 600
    assert spec.monitor.drift.psi == pytest.approx(0.2)
    assert spec.root == project


def test_a_small_file_is_completed(project: Path, small: str) -> None:
    spec = load(write(project, small))
    assert spec.endpoint == "p"
    assert len(spec.model.families) == 4
    assert spec.check_list() == ()
    assert spec.data["t"].delimiter == ","


def test_sections_with_nothing_below_them_are_their_defaults(project: Path, small: str) -> None:
    short = load(write(project, small))
    long = load(write(project, small + "deploy:\nmonitor:\n  # drift: {psi: 0.3}\ncard: null\n"))
    assert long.digest == short.digest


def test_a_folder_means_the_file_in_it(project: Path, small: str) -> None:
    write(project, small)
    assert load(project).path == project / "modelyard.yaml"


def test_checks_have_names_of_their_own_and_plain_parameters(project: Path, small: str) -> None:
    text = small + (
        "checks:\n"
        "  - roc_auc: {at_least: 0.9, with_confidence: 95%}\n"
        "  - gap: {metric: false_negative_rate, across: sex, at_most: 0.1}\n"
        "  - gap: {metric: false_negative_rate, across: race, at_most: 0.2, blocking: false}\n"
        "  - parity\n"
        "  - repeatable:\n"
        "  - latency: {p99: 5ms}\n"
    )
    checks = load(write(project, text)).check_list()
    assert [c.name for c in checks] == [
        "roc_auc",
        "gap.false_negative_rate",
        "gap.false_negative_rate.2",
        "parity",
        "repeatable",
        "latency",
    ]
    assert [c.type for c in checks] == ["metric", "gap", "gap", "parity", "repeatable", "latency"]
    assert checks[0].params == {"metric": "roc_auc", "at_least": 0.9, "with_confidence": 0.95}
    assert checks[1].params == {
        "metric": "false_negative_rate",
        "across": ["sex"],
        "at_most": 0.1,
        "at_least_rows": 30,
    }
    assert [c.blocking for c in checks[1:3]] == [True, False]
    assert checks[5].params == {"p99": 0.005, "rows": 1}


def test_the_digest_is_of_what_is_declared(project: Path, right: str) -> None:
    one = load(write(project, right)).digest
    assert load(write(project, "# a comment\n" + right.replace("20%", "0.2"))).digest == one
    lines = right.splitlines()
    moved = "\n".join([*lines[1:], lines[0]])
    assert load(write(project, moved)).digest == one
    assert load(write(project, right.replace("20%", "25%"))).digest != one


def test_places_are_known(project: Path, right: str) -> None:
    spec = load(write(project, right))
    assert spec.where("model.split.by") == "modelyard.yaml:21"
    assert spec.where("checks.2.gap.across") == "modelyard.yaml:28"
    assert spec.where("model.seed") == "modelyard.yaml:18"
    assert spec.where("model.split.seed") == "modelyard.yaml:21"
    assert spec.places["data.applicants.key"] == (8, 5)


def test_files_need_not_be_there_when_they_are_not_asked_for(project: Path, small: str) -> None:
    write(project, small.replace("data/a.csv", "data/none.csv"))
    assert load(files=False).project == "p"
    with pytest.raises(SpecError) as error:
        load()
    assert error.value.code == "spec-missing-file"


def test_an_absolute_path_is_the_users_word(
    project: Path, tmp_path_factory: pytest.TempPathFactory, small: str
) -> None:
    other = tmp_path_factory.mktemp("other") / "rows.csv"
    other.write_text("y\n1\n")
    assert load(write(project, small.replace("data/a.csv", str(other)))).data["t"].from_ == (str(other),)


def test_anchors_and_merges_are_plain_yaml(project: Path) -> None:
    text = (
        "project: p\n"
        "data:\n"
        "  t:\n"
        "    from: data/a.csv\n"
        "    contract:\n"
        "      a: &whole {type: int, nullable: false}\n"
        "      b: *whole\n"
        "      c: {<<: *whole, nullable: true}\n"
        "model: {target: y}\n"
    )
    contract = load(write(project, text)).data["t"].contract
    assert contract["b"] == contract["a"]
    assert contract["c"].type == "int"
    assert contract["c"].nullable


def test_a_file_that_cannot_be_read_says_so(project: Path) -> None:
    (project / "modelyard.yaml").mkdir()
    with pytest.raises(NotFound) as error:
        load("modelyard.yaml")
    assert error.value.code in ("spec-unreadable", "spec-not-found")
