"""Good practice: each rule is broken once and kept once, with the place and the fix."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from modelyard.cli.main import main
from modelyard.spec import load
from modelyard.spec.practice import RULES, Held, practice

GOOD = """
project: income
purpose: Decide which applicants a person should look at first.
owners: [{team: credit, contact: "mailto:credit@example.org"}]
data:
  applicants:
    from: data/*.csv
    fresh_within: 2d
    volume: {of_last: 50%}
    contract: {age: {type: int}}
model: {target: income}
steps:
  clean:
    function: steps.py:clean
    timeout: 10m
    resources: {memory: 2GB}
checks:
  - roc_auc: {at_least: 0.8}
  - beats: {champion: true}
  - gap: {metric: false_negative_rate, across: [sex], at_most: 0.1}
  - latency: {p99: 50ms}
card:
  intended_use: {for: [triage]}
  factors: [sex]
deploy: {access: {per_minute: 600}}
schedule: {at: "0 3 * * *"}
alerts: [{to: "mailto:ml@example.org", on: [start, failure]}]
cost: {per_run: 5}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("age,income\n1,2\n")
    (tmp_path / "steps.py").write_text("def clean():\n    return 1\n")
    return tmp_path


def held(project: Path, *changes: tuple[str, str]) -> dict[str, Held]:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (project / "modelyard.yaml").write_text(textwrap.dedent(text))
    lint = practice(load(project, files=False))
    assert lint.score == 100 or not all(one.kept for one in lint.rules)
    return {one.rule: one for one in lint.rules}


def test_a_declaration_that_says_it_all_has_the_whole_score(project: Path) -> None:
    found = held(project)
    assert [name for name, one in found.items() if not one.kept] == []
    assert found.keys() == {rule.name for rule in RULES}


@pytest.mark.parametrize(
    ("rule", "old", "new", "line"),
    [
        ("no-secret-in-the-file", "purpose: Decide", "purpose: password=hunter2 Decide", 3),
        ("retries-everywhere", "    timeout: 10m", "    retries: 0\n    timeout: 10m", 15),
        ("retries-everywhere", "project: income", "project: income\nretries: 0", 3),
        ("failure-is-told", "on: [start, failure]", "on: [start]", 27),
        ("start-is-told", "on: [start, failure]", "on: [failure]", 27),
        ("freshness-first", "    fresh_within: 2d\n", "", 6),
        ("volume-first", "    volume: {of_last: 50%}\n", "", 6),
        ("contract", "    contract: {age: {type: int}}\n", "", 6),
        ("owner", ', contact: "mailto:credit@example.org"', "", 4),
        ("card", "  intended_use: {for: [triage]}\n", "", 22),
        ("proof", "  - beats: {champion: true}\n", "", 17),
        ("proof", "  - gap: {metric: false_negative_rate, across: [sex], at_most: 0.1}\n", "", 17),
        ("limits-of-steps", "    timeout: 10m\n", "", 13),
        ("limits-of-steps", "    resources: {memory: 2GB}\n", "", 13),
        ("limits-of-callers", "deploy: {access: {per_minute: 600}}\n", "", 2),
        ("budget", "cost: {per_run: 5}\n", "", 2),
    ],
)
def test_each_rule_names_the_place_and_the_fix(project: Path, rule: str, old: str, new: str, line: int) -> None:
    found = held(project, (old, new))
    assert [name for name, one in found.items() if not one.kept] == [rule]
    one = found[rule]
    assert [int(place.rpartition(":")[2]) for place in one.where] == [line]
    assert all(one.lacks)
    assert all(one.fixes)


@pytest.mark.parametrize("model", ["target: income, task: regression", "target: income, metric: mae", "target: income"])
def test_a_fix_suits_the_kind_of_problem_that_the_file_declares(project: Path, model: str) -> None:
    without = (
        ("model: {target: income}", f"model: {{{model}}}"),
        ("  - roc_auc: {at_least: 0.8}\n", ""),
        ("  - gap: {metric: false_negative_rate, across: [sex], at_most: 0.1}\n", ""),
    )
    fixes = held(project, *without)["proof"].fixes
    assert len(fixes) == 2
    # Written as it stands it is taken.
    checks = "".join(f"  {fix}\n" for fix in fixes)
    assert held(project, *without, ("checks:\n", f"checks:\n{checks}"))["proof"].kept


def test_rules_that_do_not_apply_do_not_count(project: Path) -> None:
    found = held(project, ('schedule: {at: "0 3 * * *"}\n', ""))
    assert not {"start-is-told", "failure-is-told", "budget"} & found.keys()


def test_a_score_below_the_one_asked_for_fails(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held(project, ("    fresh_within: 2d\n", ""))
    monkeypatch.chdir(project)
    assert main(["lint"]) == 0
    assert "write: fresh_within: 2d" in capsys.readouterr().out
    assert main(["lint", "--at-least", "100"]) == 1
    assert main(["lint", "--at-least", "101"]) == 2


def test_the_secret_itself_is_never_printed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held(project, ("purpose: Decide", "purpose: password=hunter2 Decide"))
    monkeypatch.chdir(project)
    assert main(["lint", "--json"]) == 0
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err


@pytest.mark.parametrize("place", ["HOOK_SECRET", "env:HOOK_SECRET", "file:hook.key"])
def test_the_place_of_a_secret_is_none(project: Path, place: str) -> None:
    hook = f"triggers: {{deployed: {{webhook: {{secret: {place}}}}}}}\nschedule:"
    assert held(project, ("schedule:", hook))["no-secret-in-the-file"].kept
