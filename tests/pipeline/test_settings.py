"""What `@modelyard.step` says of a function: honoured by flows and by the file, which wins over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard import Flow
from modelyard._kit.errors import SpecError, UserError
from modelyard.pipeline.compose import compose
from modelyard.pipeline.partitions import Partition
from modelyard.pipeline.settings import Settings, said_of, settings_of
from modelyard.records import Resources, Retry


@modelyard.step(
    name="twice", outputs=["two", "one"], retries={"times": 5, "wait": "2s"}, timeout="10m", cpus=2, memory="2GB"
)
def double(x: int) -> tuple[int, int]:
    return 2 * x, x


@modelyard.step
def plain(x: int) -> int:
    return x


def couple(x: int) -> tuple[int, int]:
    return 2 * x, x


def add(a: int, b: int) -> int:
    return a + b


def test_a_marked_function_stays_a_plain_function() -> None:
    assert double(2) == (4, 2)
    assert plain(3) == 3
    assert said_of(plain) == said_of(add) == Settings()
    said = said_of(double)
    assert (said.name, said.outputs, said.timeout) == ("twice", ("two", "one"), 600.0)
    assert said.retry == Retry(times=5, wait=2.0)
    assert said.resources() == Resources(cpus=2, memory=2 * 10**9)


def test_a_flow_honours_the_mark_and_wins_over_it(tmp_path: Path) -> None:
    flow = Flow("f")
    pair = flow.step(double, x=1)
    flow.step(double, name="other", retries=0, timeout=5, memory=7, gpus=1, own_process=False, network=True, x=2)
    flow.step(add, a=pair, b=pair["one"])
    twice, other, last = flow.plan().steps
    assert (twice.name, twice.outputs, twice.timeout) == ("twice", ("two", "one"), 600.0)
    assert twice.retry == Retry(times=5, wait=2.0)
    assert (other.name, other.retry.times, other.timeout) == ("other", 0, 5.0)
    assert other.resources == Resources(cpus=2, memory=7, gpus=1, network=True)
    assert last.inputs == {"a": "twice#two", "b": "twice#one"}


def test_the_first_of_several_outputs_is_the_same_out_of_the_ledger(tmp_path: Path) -> None:
    flow = Flow("f")
    pair = flow.step(couple, outputs=("two", "one"), x=3)
    flow.step(add, a=pair, b=pair)
    assert modelyard.run(flow, project=tmp_path)["add"] == 12
    again = modelyard.run(flow, project=tmp_path)
    assert {step.status for step in again.steps} == {"cached"}
    assert again["add"] == 12


@pytest.mark.parametrize(
    ("said", "words", "hint"),
    [
        ({"retrys": 3}, "`retrys` is not a setting", "`retries`"),
        ({"retries": -1}, "retries=-1", "0 to 100"),
        ({"retries": True}, "retries=True", "attempts"),
        ({"retries": {"time": 3}}, "retries=", "`times`"),
        ({"retries": {"not_before": "2:00"}}, "not_before='2:00'", "HH:MM"),
        ({"retries": {"memory": "4 gigs"}}, "memory='4 gigs'", "2GB"),
        ({"timeout": "10"}, "timeout='10'", "10m"),
        ({"timeout": 0}, "timeout=0", "more than 0"),
        ({"timeout": -5.0}, "timeout=-5.0", "more than 0"),
        ({"timeout": float("inf")}, "timeout=inf", "more than 0"),
        ({"timeout": True}, "timeout=True", "more than 0"),
        ({"cpus": 0}, "cpus=0", "more than 0"),
        ({"cpus": "2"}, "cpus='2'", "more than 0"),
        ({"memory": "2"}, "memory='2'", "2GB"),
        ({"gpus": -1}, "gpus=-1", "0 or more"),
        ({"gpus": 0.5}, "gpus=0.5", "0 or more"),
        ({"own_process": 1}, "own_process=1", "True"),
        ({"network": "yes"}, "network='yes'", "True"),
        ({"network": 1}, "network=1", "True"),
        ({"outputs": []}, "outputs=[]", "names"),
        ({"outputs": [1]}, "outputs=[1]", "names"),
        ({"name": ""}, "name=''", "a text"),
        ({"partition": "yearly"}, "partition='yearly'", "`daily`"),
        ({"partition": []}, "partition=[]", "`daily`"),
        ({"partition": ["a", "a"]}, "partition=", "`daily`"),
        ({"partition": ["a/b"]}, "partition=", "`daily`"),
        ({"partition": {"every": "daily", "values": ["a"]}}, "partition=", "`every`"),
        ({"partition": {"every": "daily", "start": "2026-13-01"}}, "partition=", "`every`"),
        ({"partition": {"each": "daily"}}, "partition=", "`every`"),
    ],
)
def test_what_cannot_be_used_is_refused_where_it_stands(said: dict[str, Any], words: str, hint: str) -> None:
    with pytest.raises(UserError) as error:
        settings_of("steps.py:3", said)
    assert (error.value.code, error.value.problem.where) == ("step-setting", "steps.py:3")
    assert words in error.value.problem.message
    assert hint in error.value.problem.hint


def test_partitions_as_they_are_written() -> None:
    assert settings_of("", {"partition": "daily"}).partition == Partition("daily")
    start = {"every": "weekly", "start": "2026-01-01"}
    assert settings_of("", {"partition": start}).partition == Partition("weekly", "2025-12-29")
    assert settings_of("", {"partition": ["a", "b"]}).partition == Partition(values=("a", "b"))


STEPS = '''\
import modelyard as yard
from modelyard import step as marked

print("this file was run")
LIMIT = 3


@yard.step(outputs=["table", "rest"], retries=9, timeout="1m", memory="1GB", cpus=4)
def clean(n, least=1):
    """Keep what is enough.

    And nothing else.
    """
    return n, least


@marked
def bare(x, /, *, y=1): ...


@marked(retries=LIMIT)
def named(x): ...


@other
def wrapped(x): ...
'''
FILE = """\
project: p
steps:
  clean:
    function: own.py:clean
    params: {n: 1}
    timeout: 2m
    resources: {cpus: 1}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_wins_over_the_mark_and_runs_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "modelyard.yaml").write_text(FILE)
    (step,) = compose(modelyard.load()).steps
    assert step.outputs == ("table", "rest")
    assert step.retry == Retry(times=9)
    assert step.timeout == 120.0
    assert step.resources == Resources(cpus=1, memory=10**9)
    assert step.about == "Keep what is enough."
    assert "was run" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("step", "at", "words", "hint"),
    [
        ("{function: own.py:clean}", 3, '(own.py:9) needs "n"', "`inputs` or `params`"),
        ("{function: own.py:clean, params: {n: 1, leest: 2}}", 3, 'takes no "leest"', "`least`"),
        ("{function: own.py:clean, params: {n: 1}, partition: daily}", 3, 'takes no "partition"', "n, least"),
        ("{function: own.py:bare}", 3, "x by position only", "`/`"),
        ("{function: own.py:named, params: {x: 1}}", 3, '"retries" of `@modelyard.step` in own.py:21', "value itself"),
        ("{function: own.py:clean, params: {n: 1, previous: 2}}", 3, '"previous" of the step "s" is filled', "take it"),
    ],
)
def test_what_a_function_does_not_take_or_lacks(step: str, at: int, words: str, hint: str, project: Path) -> None:
    (project / "modelyard.yaml").write_text(f"project: p\nsteps:\n  s: {step}\n")
    with pytest.raises(SpecError) as error:
        modelyard.load()
    problem = next(p for p in error.value.problems if words in p.message)
    assert problem.where == f"modelyard.yaml:{at}"
    assert hint in problem.hint


def test_what_another_decorator_takes_is_not_judged(project: Path) -> None:
    (project / "modelyard.yaml").write_text("project: p\nsteps:\n  s: {function: own.py:wrapped, params: {z: 1}}\n")
    assert modelyard.load().steps["s"].params == {"z": 1}


def test_a_wrong_setting_in_the_mark_names_its_line(project: Path) -> None:
    (project / "own.py").write_text(STEPS.replace('timeout="1m"', 'timeout="1 minute"'))
    (project / "modelyard.yaml").write_text(FILE)
    with pytest.raises(UserError) as error:
        compose(modelyard.load())
    assert (error.value.code, error.value.problem.where) == ("step-setting", "own.py:9")
