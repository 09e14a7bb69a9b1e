"""Own steps of the file: found by path, joined to the built-in ones, cached, retried and recorded alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import modelyard
from modelyard._kit.errors import SpecError
from modelyard.cli.main import main
from modelyard.pipeline.code import code_version, find
from modelyard.pipeline.compose import compose
from modelyard.records import CheckResult, Evidence, Resources, Retry, TableVersion, read_value

CSV = "id,age\n1,30\n2,17\n3,55\n4,44\n"
STEPS = """\
import polars as pl

from helper import LIMIT
from modelyard.records import Check, CheckResult, Evidence, Limit


def adults(table, least):
    return table.filter(pl.col("age") >= least), LIMIT


def count(table, *, limit):
    n = table.collect().height
    evidence = Evidence(measure="rows", value=n, n=n)
    check = Check(name="rows", type="rows")
    return CheckResult(
        check=check, status="passed", reason="enough", limit=Limit(op="at_least", value=limit), evidence=evidence
    )


def both(values, fire=None, previous=None):
    return {"values": values, "fire": fire, "previous": previous}
"""
FILE = """\
project: adults
data: {people: {from: people.csv, key: id}}
retries: 5
steps:
  report:
    function: own/steps.py:both
    inputs: {values: [few#limit, few#limit]}
    after: [counted]
    retries: {times: 1, wait: 2s}
    timeout: 1m
    resources: {cpus: 2, memory: 1GB, gpus: 0, own_process: true}
  counted:
    function: own/steps.py:count
    inputs: {table: few#table, limit: few#limit}
  few:
    function: ./own/steps.py:adults
    inputs: {table: contract.people#accepted}
    params: {least: 18}
    outputs: [table, limit]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "people.csv").write_text(CSV)
    (tmp_path / "own" / "steps.py").write_text(STEPS)
    (tmp_path / "own" / "helper.py").write_text("LIMIT = 2\n")
    (tmp_path / "modelyard.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_plan_has_built_in_and_own_steps_each_after_what_it_takes(project: Path) -> None:
    plan = compose(modelyard.load())
    names = [step.name for step in plan.steps]
    assert names[-3:] == ["few", "counted", "report"]
    assert "features" not in names
    assert {step.retry.times for step in plan.steps} == {5, 1}
    report = plan.step("report")
    assert report.verb == "own/steps.py:both"
    assert report.inputs == {"values": ["few#limit", "few#limit"]}
    assert report.retry == Retry(times=1, wait=2.0)
    assert report.timeout == 60.0
    assert report.resources == Resources(cpus=2, memory=10**9, own_process=True)
    assert plan.step("few").verb == "own/steps.py:adults"
    assert plan.step("few").retry == Retry(times=5)


def test_own_steps_run_and_leave_tables_and_evidence(project: Path) -> None:
    run = modelyard.run()
    assert run.status == "succeeded"
    table = read_value(run["few#table"])
    assert isinstance(table, TableVersion)
    assert table.rows == 3
    result = read_value(run["counted"])
    assert isinstance(result, CheckResult)
    assert isinstance(result.evidence, Evidence)
    assert result.evidence.data == (table.digest,)
    assert result.evidence.code == code_version(find("own/steps.py:count", project))
    assert run["report"] == {"values": [2, 2], "fire": None, "previous": None}


def test_only_what_a_change_touches_runs_again(project: Path) -> None:
    modelyard.run()
    assert {step.status for step in modelyard.run().steps} == {"cached"}
    (project / "own" / "helper.py").write_text("LIMIT = 3\n")
    after = {step.name: step.status for step in modelyard.run().steps}
    assert after["contract.people"] == "cached"
    assert after["few"] == after["counted"] == after["report"] == "succeeded"
    (project / "modelyard.yaml").write_text(FILE.replace("least: 18", "least: 50"))
    again = modelyard.run()
    assert read_value(again["few#table"]).rows == 1
    assert again.step("report").status == "cached"


def test_a_function_is_the_same_wherever_the_project_lies_and_whoever_asks(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    (other / "own").mkdir(parents=True)
    for name in ("steps.py", "helper.py"):
        (other / "own" / name).write_text((project / "own" / name).read_text())
    here, there = (code_version(find("own/steps.py:both", root)) for root in (project, other))
    assert here == there
    (other / "own" / "helper.py").write_text("LIMIT = 0\n")
    assert code_version(find("own/steps.py:both", other)) != here
    code = (
        "from pathlib import Path; from modelyard.pipeline.code import *;"
        f"print(code_version(find('own/steps.py:both', Path({str(project)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here
    assert "helper" not in sys.modules


@pytest.mark.parametrize(
    ("old", "new", "code", "where", "words", "hint"),
    [
        ("  few:", "  guard:", "step-name-taken", "15", '"guard" is the name of a built-in', "another name"),
        ("[counted]", "[countd]", "step-unknown", "8", '"countd"', "`counted`"),
        ("contract.people#", "contract.peple#", "step-unknown", "17", '"contract.peple"', "`contract.people`"),
        ("#accepted", "#acepted", "step-output-unknown", "17", 'no output "acepted"', "`accepted`"),
        ("table: few#table", "table: few#tables", "step-output-unknown", "14", 'no output "tables"', "`table`"),
        ("[few#limit, few#limit]", "[few#limit, few#x]", "step-output-unknown", "7", 'no output "x"', "table, limit"),
    ],
)
def test_what_a_step_cannot_take(
    old: str, new: str, code: str, where: str, words: str, hint: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FILE.replace(old, new, 1)
    (project / "modelyard.yaml").write_text(text)
    with pytest.raises(SpecError) as error:
        compose(modelyard.load())
    found = next(p for p in error.value.problems if p.code == code)
    assert (found.code, found.where) == (code, f"modelyard.yaml:{where}")
    assert words in found.message
    assert hint in found.hint
    assert main(["check"]) == 2
    assert f"[{code}] modelyard.yaml:{where}" in capsys.readouterr().err


def test_verbs_for_models_say_that_there_is_none(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "modelyard.yaml: ok: 1 table, 3 steps\n"
    assert main(["run"]) == 0
    capsys.readouterr()
    for verb in (["serve"], ["card"], ["promote", "abc"], ["rollback"], ["watch"], ["predict", "people.csv"]):
        assert main(verb) == 2, verb
        assert "error[model-not-declared] modelyard.yaml:1" in capsys.readouterr().err


def test_without_data_there_is_no_built_in_step(project: Path) -> None:
    (project / "modelyard.yaml").write_text("project: p\nsteps:\n  one: {function: one.py:one}\n")
    (project / "one.py").write_text("def one():\n    print('talk')\n    return 1\n")
    run = modelyard.run()
    assert [step.name for step in run.steps] == ["one"]
    assert run["one"] == 1


FEEDING = """\
project: adults
data: {people: {from: people.csv, key: id}}
features: own/features.py:build
steps:
  few:
    function: own/steps.py:adults
    inputs: {table: contract.people#accepted}
    params: {least: 18}
    outputs: [table, limit]
    feeds: people
  more: {function: own/steps.py:extra, feeds: extra}
"""


def test_what_a_step_feeds_is_a_table_of_the_features(project: Path) -> None:
    (project / "own" / "steps.py").write_text(
        STEPS + "\n\ndef extra():\n    return pl.DataFrame({'id': [3], 'more': [1]})\n"
    )
    (project / "own" / "features.py").write_text(
        "def build(tables):\n    return tables['people'].join(tables['extra'], on='id', how='left')\n"
    )
    (project / "modelyard.yaml").write_text(FEEDING)
    names = [step.name for step in compose(modelyard.load()).steps]
    assert names == ["guard", "load.people", "contract.people", "few", "more", "features"]
    run = modelyard.run()
    made = read_value(run["features"])
    assert (made.rows, [c.name for c in made.columns]) == (3, ["id", "age", "more"])


def test_a_step_that_feeds_what_it_waits_for_is_a_circle(project: Path) -> None:
    text = FEEDING.replace("contract.people#accepted", "features") + "model: {target: age}\n"
    (project / "modelyard.yaml").write_text(text.replace("  more: {function: own/steps.py:extra, feeds: extra}\n", ""))
    (project / "own" / "features.py").write_text("def build(tables): ...\n")
    with pytest.raises(SpecError) as error:
        compose(modelyard.load())
    assert error.value.problem.where == "modelyard.yaml:5"
    assert '"few" waits for itself: few -> features -> few' in error.value.problem.message


def test_what_is_fed_and_is_no_table(project: Path) -> None:
    text = FEEDING.replace("features: own/features.py:build\n", "").replace(
        "  more: {function: own/steps.py:extra, feeds: extra}\n", ""
    )
    (project / "modelyard.yaml").write_text(text.replace("[table, limit]", "[limit, table]") + "features: f.py:build\n")
    (project / "f.py").write_text("def build(tables): return tables['people']\n")
    (project / "own" / "steps.py").write_text(STEPS.replace(">= least), LIMIT", ">= least).collect().height, 1"))
    with pytest.raises(modelyard.ModelyardError) as error:
        modelyard.run()
    assert error.value.code == "features-not-a-table"


CHANGING = """\
from pathlib import Path


def first():
    Path(__file__).write_text(Path(__file__).read_text() + "EDITED = 1\\n")
    return 1


def second():
    return 2
"""


def test_code_that_changes_under_way_is_not_taken_for_what_it_was(project: Path) -> None:
    (project / "own" / "steps.py").write_text(CHANGING)
    steps = "  first: {function: own/steps.py:first}\n  second: {function: own/steps.py:second}\n"
    (project / "modelyard.yaml").write_text(f"project: p\nsteps:\n{steps}")
    with pytest.raises(modelyard.ModelyardError) as error:
        modelyard.run()
    assert error.value.code == "step-code-changed"
    assert error.value.exit_code == 2


def test_a_plan_runs_no_file_and_forgets_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "one.py").write_text("print('run')\nraise OSError('no network')\ndef one(): return 1\n")
    (project / "modelyard.yaml").write_text("project: p\nsteps:\n  one: {function: one.py:one}\n")
    assert main(["plan"]) == 0
    assert "never ran" in capsys.readouterr().out
    with pytest.raises(modelyard.ModelyardError, match="no network"):
        modelyard.run()
    (project / "one.py").write_text("def one(: return 1\n")
    assert main(["check"]) == 2
    assert "[spec-bad-function] modelyard.yaml:3" in capsys.readouterr().err


def test_a_helper_that_is_broken_later_is_told_with_its_line(project: Path) -> None:
    (project / "own" / "helper.py").write_text("LIMIT = (\n")
    with pytest.raises(modelyard.ModelyardError) as error:
        modelyard.run()
    assert error.value.code == "function-unreadable"
