"""What is right alone and cannot hold together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard._kit.errors import Problem

Judge = Callable[[str], list[Problem]]
DATA = "project: p\ndata: {t: {from: data/a.csv}}\n"

# Text of the model (and below) -> line, code, words of the message, words of the hint.
MODELS = {
    "target dropped": (
        "target: y\n  drop: [a, y]",
        5,
        "spec-contradiction",
        '"y" stands in "model.drop"',
        "take it out",
    ),
    "time without column": ("target: y\n  split: {by: time}", 5, "spec-contradiction", 'needs "column"', "the time"),
    "group without column": ("target: y\n  split: {by: group}", 5, "spec-contradiction", 'needs "column"', "the group"),
    "column of a random split": ("target: y\n  split: {column: a}", 5, "spec-contradiction", "no use", "by: time"),
    "split by the target": (
        "target: y\n  split: {by: group, column: y}",
        5,
        "spec-contradiction",
        "which is the target",
        "another column",
    ),
    "metric of another task": (
        "target: y\n  task: regression\n  metric: roc_auc",
        6,
        "spec-contradiction",
        '"roc_auc" measures binary and multiclass problems, but "model.task" is regression',
        "agree",
    ),
    "positive of a regression": (
        "target: y\n  metric: rmse\n  positive: a",
        6,
        "spec-contradiction",
        '"model.positive" is for binary problems, but "rmse"',
        "agree",
    ),
    "logistic regression": (
        "target: y\n  task: regression\n  candidates: [linear, logistic]",
        6,
        "spec-contradiction",
        '"logistic" is for classification',
        "agree",
    ),
    "check of another task": (
        "target: y\n  metric: rmse\nchecks:\n  - recall: {at_least: 0.5}",
        7,
        "spec-contradiction",
        '"recall" measures',
        "agree",
    ),
    "gap of another task": (
        "target: y\n  task: binary\nchecks:\n  - gap: {metric: mae, across: a, at_most: 1}",
        7,
        "spec-contradiction",
        '"mae" measures regression problems',
        "agree",
    ),
    "two checks that never agree": (
        "target: y\nchecks:\n  - mae: {at_most: 1}\n  - f1: {at_least: 0.5}",
        7,
        "spec-contradiction",
        '"f1" measures binary and multiclass problems, but "mae"',
        "agree",
    ),
    "no limit": ("target: y\nchecks:\n  - mae: {blocking: false}", 6, "spec-missing-field", "no limit", "at_most"),
    "limits exchanged": (
        "target: y\nchecks:\n  - mae: {at_least: 2, at_most: 1}",
        6,
        "spec-contradiction",
        "at least 2 and at most 1",
        "exchange",
    ),
    "beats nothing": (
        "target: y\nchecks:\n  - beats: {champion: false, baseline: false}",
        6,
        "spec-contradiction",
        "neither champion nor baseline",
        "true",
    ),
    "gap across the target": (
        "target: y\nchecks:\n  - gap: {metric: mae, across: y, at_most: 1}",
        6,
        "spec-contradiction",
        "which is the target",
        "groups",
    ),
    "the same check twice": (
        "target: y\nchecks:\n  - mae: {at_most: 1}\n  - mae: {at_most: 1.0}",
        7,
        "spec-duplicate-check",
        "the first is on line 6",
        "one of them",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_of_the_model(case: str, problems: Judge) -> None:
    text, line, code, words, hint = MODELS[case]
    (found,) = problems(f"{DATA}model:\n  {text}\n")
    assert (found.where, found.code) == (f"modelyard.yaml:{line}", code)
    assert words in found.message
    assert hint in found.hint


def test_two_limits_of_one_metric_are_two_checks(problems: Judge) -> None:
    text = "model: {target: y}\nchecks:\n  - mae: {at_most: 1}\n  - mae: {at_most: 2, blocking: false}\n"
    assert problems(DATA + text) == []


def test_a_gap_across_a_column_that_the_model_does_not_see_is_meant(problems: Judge) -> None:
    text = "model: {target: y, drop: [sex]}\nchecks:\n  - gap: {metric: mae, across: sex, at_most: 1}\n"
    assert problems(DATA + text) == []


RULES = {
    "range": ("range: [3, 1]", "begins at 3 and ends before it", "smaller"),
    "range of dates": ("type: date, range: [2026-02-01, 2026-01-01]", "begins at 2026-02-01", "smaller"),
    "range of text": ("type: text, range: [1, 3]", "a range is for numbers", "type"),
    "number bounds a date": ("type: date, range: [1, null]", '"1" bounds "a"', "as the column"),
    "text bounds a number": ("type: int, range: [low, 3]", '"low" bounds "a"', "as the column"),
    "mixed range": ("range: [1, b]", "mixes a number and a text", "both"),
    "pattern of a number": ("type: int, pattern: a", "a pattern is for text", "type: text"),
    "not a pattern": ("pattern: '(a'", "is not a regular expression", "backslash"),
    "look-around": ("pattern: '(?=a)b'", "looks around or back", "without"),
    "back-reference": ("pattern: '(a)\\1'", "looks around or back", "without"),
    "allowed of another type": ("type: int, allowed: [1, two]", '"two" is allowed', "type"),
    "never and sometimes missing": ("nullable: false, max_missing: 5%", "may miss no value", "one of them"),
}


@pytest.mark.parametrize("case", RULES)
def test_of_a_contract(case: str, problems: Judge) -> None:
    rule, words, hint = RULES[case]
    text = f"project: p\ndata:\n  t:\n    from: data/a.csv\n    contract:\n      a: {{{rule}}}\nmodel: {{target: y}}\n"
    (found,) = problems(text)
    assert found.where == "modelyard.yaml:6"
    assert words in found.message
    assert hint in found.hint


@pytest.mark.parametrize(
    "rule",
    [
        "type: float, allowed: [1, 2.5], range: [0, 9]",
        "type: date, allowed: [2026-01-01], range: [2026-01-01, null]",
        "type: int, range: [0.5, 3]",
        "type: text, allowed: [a, 1], pattern: '[a1]'",
        "type: bool, allowed: [true]",
        "nullable: false, max_missing: 0%",
    ],
)
def test_a_contract_that_holds_together(rule: str, problems: Judge) -> None:
    assert (
        problems(f"project: p\ndata: {{t: {{from: data/a.csv, contract: {{a: {{{rule}}}}}}}}}\nmodel: {{target: y}}\n")
        == []
    )


def test_positive_must_be_allowed(problems: Judge) -> None:
    data = 'project: p\ndata: {t: {from: data/a.csv, contract: {y: {allowed: ["<=50K", ">50K"]}}}}\n'
    (found,) = problems(data + 'model: {target: y, positive: ">50k"}\n')
    assert "not among the values" in found.message
    assert "`>50K`" in found.hint
    assert problems(data + 'model: {target: y, positive: ">50K"}\n') == []
    truth = "project: p\ndata: {t: {from: data/a.csv, contract: {y: {allowed: [true, false]}}}}\n"
    assert problems(truth + "model: {target: y, positive: true}\n") == []


def test_several_tables_need_features(problems: Judge) -> None:
    data = "project: p\ndata:\n  t: {from: data/a.csv}\n  u: {from: data/a.csv}\nmodel: {target: y}\n"
    (found,) = problems(data)
    assert found.where == "modelyard.yaml:2"
    assert '"t", "u"' in found.message
    assert problems(data + "features: features.py:build\n") == []


def test_columns_of_a_file_without_header(problems: Judge) -> None:
    def judged(rest: str) -> list[Problem]:
        return problems(f"project: p\ndata:\n  t:\n    from: data/a.csv\n{rest}\nmodel: {{target: y}}\n")

    assert judged("    columns: [a, b]\n    key: a") == []
    assert '"aa" is not among' in judged("    columns: [a, b]\n    key: aa")[0].message
    assert "`b`" in judged("    columns: [a, bb]\n    cursor: b")[0].hint or judged(
        "    columns: [a, b]\n    cursor: c"
    )
    assert '"a" stands twice' in judged("    columns: [a, a]")[0].message


def test_delimiters(problems: Judge) -> None:
    def judged(delimiter: str) -> list[Problem]:
        return problems(
            f"project: p\ndata: {{t: {{from: data/a.csv, delimiter: {delimiter}}}}}\nmodel: {{target: y}}\n"
        )

    for right in ('";"', '", "', '"\\t"', '" "', '"|"'):
        assert judged(right) == [], right
    for wrong in ('"ab"', '"  "', '"; ;"', '""'):
        assert judged(wrong), wrong


def test_what_could_not_be_read_is_not_judged(problems: Judge) -> None:
    (found,) = problems(DATA + "model: {target: y, split: {by: tme}}\nchecks:\n  - mae: {at_most: 1}\n")
    assert found.code == "spec-bad-value"
    (found,) = problems(DATA + "model: {target: y}\nchecks:\n  - gap: {metric: mae, acros: a, at_most: 1}\n")
    assert found.code == "spec-unknown-field"
    assert {p.code for p in problems(DATA + "model: {targt: y, drop: [y]}\n")} == {"spec-unknown-field"}


# --- what lies outside the file


def test_a_missing_file_names_what_is_near(problems: Judge, small: str) -> None:
    (found,) = problems(small.replace("data/a.csv", "data/aa.csv"))
    assert (found.code, found.where) == ("spec-missing-file", "modelyard.yaml:2")
    assert "`data/a.csv`" in found.hint
    (found,) = problems(small.replace("data/a.csv", "dat/*.csv"))
    assert "`data`" in found.hint
    (found,) = problems(small.replace("data/a.csv", "data/*.parquet"))
    assert "a.csv" in found.hint
    (found,) = problems(small.replace("data/a.csv", "/nowhere/at/all.csv"))
    assert found.code == "spec-missing-file"


def test_a_folder_and_patterns_will_do(problems: Judge, project: Path, small: str) -> None:
    for name in ("data", "data/", "data/*", "data/?.csv", "**/a.csv", "./data/a.csv", "data/../data/a.csv"):
        assert problems(small.replace("data/a.csv", f"'{name}'")) == [], name
    (project / "empty").mkdir()
    (found,) = problems(small.replace("data/a.csv", "empty"))
    assert found.code == "spec-missing-file"


def test_a_path_does_not_climb_out_of_the_project(problems: Judge, project: Path, small: str) -> None:
    (project.parent / "outside.csv").write_text("y\n1\n")
    for name in ("../outside.csv", "data/../../outside.csv"):
        (found,) = problems(small.replace("data/a.csv", name))
        assert found.code == "spec-path-outside"
        assert str(project.parent / "outside.csv") in found.hint
    (found,) = problems(small + "features: ../features.py:build\n")
    assert found.code == "spec-path-outside"


def test_an_address_that_nothing_installed_reads(problems: Judge, small: str) -> None:
    (found,) = problems(small.replace("data/a.csv", "s3://bucket/rows.csv"))
    assert (found.code, found.where) == ("data-source-unknown", "modelyard.yaml:2")
    assert "s3://" in found.message
    assert found.hint


def test_the_home_folder_may_be_meant(
    problems: Judge, project: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    assert problems(small.replace("data/a.csv", "~/data/a.csv")) == []
    assert [p.code for p in problems(small.replace("data/a.csv", "~/data/b.csv"))] == ["spec-missing-file"]


def test_features_are_looked_at_and_never_run(problems: Judge, project: Path, small: str) -> None:
    assert problems(small + "features: features.py:build\n") == []
    (found,) = problems(small + "features: featurs.py:build\n")
    assert (found.code, found.where) == ("spec-missing-file", "modelyard.yaml:4")
    assert "`features.py`" in found.hint
    (found,) = problems(small + "features: features.py:bild\n")
    assert found.code == "spec-missing-function"
    assert "`features.py:build`" in found.hint
    (project / "other.py").write_text("raise SystemExit\nfrom elsewhere import build\nmade = build\n")
    assert problems(small + "features: other.py:build\n") == []
    assert problems(small + "features: other.py:made\n") == []
    (project / "broken.py").write_text("def build(tables:\n")
    (found,) = problems(small + "features: broken.py:build\n")
    assert found.code == "spec-bad-function"
    assert "line 1" in found.message
    (project / "nul.py").write_bytes(b"x = '\0'\n")
    assert [p.code for p in problems(small + "features: nul.py:build\n")] == ["spec-bad-function"]
