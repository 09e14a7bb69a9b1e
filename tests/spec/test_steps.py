"""Own steps in the file, retries, and projects without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard._kit.errors import Problem
from modelyard.records import Resources, Retry
from modelyard.spec import explain, json_schema, load
from modelyard.spec.sections.retries import to_retry

Judge = Callable[[str], list[Problem]]
HEAD = "project: p\nsteps:\n"
FUNCTIONS = "def one(): ...\ndef two(a): ...\ndef any(**more): ...\n"


@pytest.fixture(autouse=True)
def _functions(project: Path) -> None:
    (project / "steps.py").write_text(FUNCTIONS)


def test_a_project_of_steps_only(problems: Judge) -> None:
    assert problems(HEAD + "  one: {function: steps.py:one}\n") == []


def test_data_and_steps_without_a_model(problems: Judge) -> None:
    assert problems(HEAD + "  one: {function: steps.py:one}\ndata: {t: {from: data/a.csv}}\n") == []


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("project: p\n", "modelyard.yaml:1", 'needs "data" and "model", or "steps"'),
        ("project: p\ndata: {t: {from: data/a.csv}}\n", "modelyard.yaml:1", 'needs "model", or "steps"'),
        ("project: p\nmodel: {target: y}\n", "modelyard.yaml:2", 'needs "data"'),
        (HEAD + "  one: {function: steps.py:one}\nfeatures: features.py:build\n", "modelyard.yaml:4", 'needs "data"'),
        (HEAD + "  one: {function: steps.py:one}\nchecks: [parity]\n", "modelyard.yaml:4", '"checks" would measure'),
        (HEAD + "  one: {function: steps.py:one}\ncard: {ethics: x}\n", "modelyard.yaml:4", '"card" would describe'),
        (HEAD + "  one: {function: steps.py:one}\ndeploy:\n", "modelyard.yaml:4", '"deploy" would serve'),
        (HEAD + "  one: {function: steps.py:one}\nmonitor: {window: 10}\n", "modelyard.yaml:4", '"monitor" would'),
        (HEAD + "  one: {}\n", "modelyard.yaml:3", 'needs "function"'),
    ],
)
def test_what_is_missing_for_something_else(text: str, where: str, words: str, problems: Judge) -> None:
    (found,) = problems(text)
    assert (found.code, found.where) == ("spec-missing-field", where)
    assert words in found.message
    assert found.hint


@pytest.mark.parametrize(
    ("line", "code", "words", "hint"),
    [
        ("function: steps.py", "spec-bad-value", "FILE.py:FUNCTION", "steps.py:clean"),
        ("function: step.py:one", "spec-missing-file", '"step.py"', "`steps.py`"),
        ("function: steps.py:on", "spec-missing-function", '"on"', "`steps.py:one`"),
        ("function: ../steps.py:one", "spec-path-outside", "leads out", "whole path"),
        ("resources: {memory: 2}", "spec-bad-size", "a size with a unit", "2GB"),
        ("resources: {memory: 2 gigs}", "spec-bad-size", "a size with a unit", "2GB"),
        ("resources: {memory: 0MB}", "spec-bad-size", "not more than 0", "2GB"),
        ("resources: {memory: -1GB}", "spec-bad-size", "a size with a unit", "2GB"),
        ("resources: {cpus: -1}", "spec-bad-value", "not more than 0", "cpus: 2"),
        ("resources: {cpus: 0}", "spec-bad-value", "not more than 0", "cpus: 2"),
        ("resources: {gpus: -1}", "spec-bad-value", "less than 0", "gpus: 1"),
        ("resources: {gpus: 0.5}", "spec-wrong-type", "a whole number", "gpus: 1"),
        ("resources: {gpu: 1}", "spec-unknown-field", '"gpu"', "`gpus`"),
        ("resources: {network: 1}", "spec-wrong-type", "takes `true` or `false`", "network: true"),
        ("resources: {network: maybe}", "spec-wrong-type", "takes `true` or `false`", "network: true"),
        ("resources: {networks: true}", "spec-unknown-field", '"networks"', "`network`"),
        ("retries: -1", "spec-bad-value", "less than 0", "times: 3"),
        ("retries: many", "spec-wrong-type", "a whole number", "times: 3"),
        ("retries: [1]", "spec-wrong-type", "a whole number, or fields", "retries: 3"),
        ("retries: {times: 1000}", "spec-bad-value", "more than 100", "times: 3"),
        ("retries: {wait: 0s}", "spec-bad-duration", "not more than 0", "wait: 1s"),
        ("retries: {not_before: 25:00}", "spec-bad-value", "time of day", "02:00"),
        ("retries: {not_before: 2:00}", "spec-bad-value", "time of day", "02:00"),
        ("timeout: 10", "spec-bad-duration", "a time with a unit", "10m"),
        ("timeout: 0m", "spec-bad-duration", "not more than 0", "10m"),
        ("inputs: {a: b#}", "spec-bad-value", "STEP#OUTPUT", "explain"),
        ("inputs: {a b: c}", "spec-bad-value", "name of a parameter", "such a name"),
        ("inputs: {a: [c, 2]}", "spec-wrong-type", "an output of a step", "quotes"),
        ("inputs: {a: {b: c}}", "spec-wrong-type", "or a list, each item an output", "explain"),
        ("params: {a: [1, {b: .inf}]}", "spec-bad-value", "not a finite number", "leave it out"),
        ("outputs: []", "spec-bad-value", "is empty", "table"),
        ("outputs: [a b]", "spec-bad-value", "a name", "explain"),
        ("inputs: {a: c}\n    params: {a: 1}", "spec-contradiction", "an input and a parameter", "keep one"),
    ],
)
def test_one_mistake_in_a_step(line: str, code: str, words: str, hint: str, problems: Judge) -> None:
    first = "" if line.startswith("function") else "    function: steps.py:any\n"
    (found,) = problems(f"{HEAD}  mine:\n{first}    {line}\n  c: {{function: steps.py:one}}\n")
    number = 4 + line.count("\n") + bool(first)
    assert (found.code, found.where) == (code, f"modelyard.yaml:{number}")
    assert words in found.message
    assert hint in found.hint


def test_a_name_of_a_step_is_a_name(problems: Judge) -> None:
    (found,) = problems(HEAD + "  my step: {function: steps.py:one}\n")
    assert (found.code, found.where) == ("spec-bad-value", "modelyard.yaml:3")
    (found,) = problems("project: p\nsteps: {}\n")
    assert (found.code, found.where) == ("spec-missing-field", "modelyard.yaml:2")


def test_a_circle_is_named_with_its_line(problems: Judge) -> None:
    text = (
        "  a: {function: steps.py:one, after: [d]}\n"
        "  b: {function: steps.py:two, inputs: {a: a}}\n"
        "  c: {function: steps.py:two, inputs: {a: [b#value, a]}}\n"
        "  d: {function: steps.py:one, after: c}\n"
        "  e: {function: steps.py:two, inputs: {a: e}}\n"
    )
    first, second = problems(HEAD + text)
    assert (first.code, first.where) == ("spec-contradiction", "modelyard.yaml:3")
    assert first.message.startswith('the step "a" waits for itself: a -> ')
    assert first.message.endswith(" -> a")
    assert "d -> a" in first.message or "a -> d" in first.message
    assert second.where == "modelyard.yaml:7"
    assert second.message.endswith(": e -> e")


def test_what_stands_in_the_file_is_what_is_declared(project: Path) -> None:
    (project / "modelyard.yaml").write_text(
        HEAD
        + """\
  mine:
    function: steps.py:any
    inputs: {a: [one, other#x], b: one}
    params: {threshold: 3, deep: {list: [1, null, true, "x"]}}
    after: other
    outputs: [x, y]
    resources: {cpus: 0.5, memory: 1.5GiB, gpus: 1, own_process: true, network: true}
    retries: {times: 5, wait: 2s, most: 5m, memory: 4GB, not_before: 02:00}
    timeout: 10m
  one: {function: steps.py:one, retries: 0}
  other: {function: steps.py:one, outputs: x}
retries: 7
"""
    )
    spec = load()
    mine = spec.steps["mine"]
    assert mine.inputs == {"a": ("one", "other#x"), "b": "one"}
    assert mine.params == {"threshold": 3, "deep": {"list": [1, None, True, "x"]}}
    assert (mine.after, mine.outputs, mine.timeout) == (("other",), ("x", "y"), 600.0)
    asked = mine.resources.to_resources()
    assert asked == Resources(cpus=0.5, memory=3 * 2**29, gpus=1, own_process=True, network=True)
    assert to_retry(mine.retries) == Retry(times=5, wait=2.0, most=300.0, memory=4 * 10**9, not_before="02:00")
    assert to_retry(spec.steps["one"].retries).times == 0
    assert to_retry(spec.steps["other"].retries, to_retry(spec.retries)) == Retry(times=7)
    assert spec.digest == load().digest


def test_fields_are_explained() -> None:
    assert explain("steps.clean.retries").takes == "a whole number, or fields with values"
    assert "`500MB`" in explain("steps.resources.memory").takes
    assert explain("retries.most").default == "1m"
    assert explain("steps.inputs").fields == {}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("  one: {function: steps.py:one, notebook: a.ipynb}\n", 3, "and has both"),
        ("  one: {function: steps.py:one, feeds: t}\n", 3, "nothing takes the table"),
        (
            (
                "  one: {function: steps.py:one, feeds: t}\n  two: {function: steps.py:any, feeds: t}\n"
                "data: {t: {from: data/a.csv}}\nmodel: {target: y}\n"
            ),
            4,
            'both feed "t"',
        ),
        (
            (
                "  one: {function: steps.py:any, feeds: t, partition: {values: [a]}}\n"
                "data: {t: {from: data/a.csv}}\nmodel: {target: y}\n"
            ),
            3,
            "makes several tables",
        ),
        (
            "  one: {function: steps.py:one, feeds: u}\ndata: {t: {from: data/a.csv}}\nmodel: {target: y}\n",
            4,
            '2 tables ("t", "u") and no "features"',
        ),
    ],
)
def test_what_cannot_hold_together(text: str, line: int, words: str, problems: Judge) -> None:
    found = [p for p in problems(HEAD + text) if p.code == "spec-contradiction"]
    assert [p.where for p in found] == [f"modelyard.yaml:{line}"]
    assert words in found[0].message
    assert found[0].hint


@pytest.mark.parametrize(
    ("step", "takes"),
    [
        ("{function: steps.py:one}", True),
        ("{function: steps.py:one, retries: 3, timeout: 90s, outputs: x, after: c}", True),
        ("{function: steps.py:one, retries: null, partition: null, resources: null}", True),
        ("{function: steps.py:one, retries: {times: 0, wait: 1ms, memory: 1.5GiB}}", True),
        ("{function: steps.py:one, inputs: {a: c, b: [c, 'c#value']}, params: {p: [1, {q: null}]}}", True),
        ("{function: steps.py:one, partition: daily}", True),
        ("{function: steps.py:one, partition: {every: hourly, start: 2026-01-01T05}}", True),
        ("{function: steps.py:one, partition: {values: [1, b]}}", True),
        ("{notebook: a/b.ipynb, outputs: [mean]}", True),
        ("{function: steps.py}", False),
        ("{notebook: b.py}", False),
        ("{function: steps.py:one, retries: -1}", False),
        ("{function: steps.py:one, retries: many}", False),
        ("{function: steps.py:one, retries: {times: x}}", False),
        ("{function: steps.py:one, retries: {not_before: '24:00'}}", False),
        ("{function: steps.py:one, timeout: 10}", False),
        ("{function: steps.py:one, resources: {memory: 2}}", False),
        ("{function: steps.py:one, resources: {memory: 2 gigs}}", False),
        ("{function: steps.py:one, resources: {cpus: 0}}", False),
        ("{function: steps.py:one, outputs: []}", False),
        ("{function: steps.py:one, outputs: [a b]}", False),
        ("{function: steps.py:one, inputs: {a b: c}}", False),
        ("{function: steps.py:one, inputs: {a: 'c#'}}", False),
        ("{function: steps.py:one, inputs: {a: {b: c}}}", False),
        ("{function: steps.py:one, partition: yearly}", False),
        ("{function: steps.py:one, partition: {start: tomorrow}}", False),
        ("{function: steps.py:one, partition: {values: [a/b]}}", False),
        ("{function: steps.py:one, feeds: a b}", False),
        ("{functon: steps.py:one}", False),
    ],
)
def test_the_schema_takes_of_a_step_what_the_reader_takes(step: str, takes: bool, problems: Judge) -> None:
    import jsonschema
    import yaml

    text = f"{HEAD}  s: {step}\n  c: {{function: steps.py:one}}\n"
    validator = jsonschema.Draft202012Validator(json_schema())
    found = [p for p in problems(text) if p.code not in ("spec-contradiction", "step-parameter", "spec-missing-file")]
    assert (found == []) is takes
    # PyYAML reads dates and numbers that YAML 1.2 does not know.
    loaded = yaml.load(text, Loader=yaml.BaseLoader) if "2026" in text else yaml.safe_load(text)  # noqa: S506 - texts only
    assert validator.is_valid(loaded) is takes


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("steps: {c: {function: steps.py:one}}", True),
        ("steps: {c: {function: steps.py:one}}\nretries: 5", True),
        ("steps: {c: {function: steps.py:one}}\ndata: {t: {from: data/a.csv}}", True),
        ("data: {t: {from: data/a.csv}}", False),
        ("model: {target: y}", False),
        ("steps: {c: {function: steps.py:one}}\nchecks: [parity]", False),
        ("steps: {}", False),
    ],
)
def test_the_schema_says_what_a_file_needs(text: str, takes: bool, problems: Judge) -> None:
    import jsonschema
    import yaml

    whole = f"project: p\n{text}\n"
    assert (problems(whole) == []) is takes
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(yaml.safe_load(whole)) is takes
