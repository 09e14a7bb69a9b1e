"""`modelyard check` and `modelyard schema`, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from modelyard.cli.main import main

RIGHT = "project: p\ndata: {t: {from: a.csv}}\nmodel: {target: y}\nchecks: [parity, beats]\n"
BAD = {
    "no file": None,
    "empty file": b"",
    "not YAML": b"project: {",
    "tab": b"project: p\nmodel:\n\ttarget: y\n",
    "unknown field": RIGHT.encode() + b"purpos: x\n",
    "wrong type": RIGHT.encode() + b"purpose: [a]\n",
    "missing file": RIGHT.replace("a.csv", "b.csv").encode(),
    "not UTF-8": b"project: \xff\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_right_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "modelyard.yaml").write_text(RIGHT)
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "modelyard.yaml: ok: 1 table, 4 candidates, 2 checks\n"
    assert main(["check", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    assert (said["tables"], said["candidates"], said["checks"]) == (1, 4, 2)


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_ends_with_2_and_writes_nothing(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = BAD[case]
    if content is not None:
        (folder / "modelyard.yaml").write_bytes(content)
    before = sorted(folder.rglob("*"))
    assert main(["check"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[spec-")
    assert "modelyard.yaml" in err
    assert "hint: " in err
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


def test_every_mistake_is_said_with_its_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "modelyard.yaml").write_text("project: p\ndata: {t: {from: b.csv}}\nmodel: {targt: y}\npurpos: x\n")
    assert main(["check"]) == 2
    err = capsys.readouterr().err
    assert 'modelyard.yaml:3: "targt" is not a field of "model"\n  hint: did you mean `target`?' in err
    assert [line.split()[1] for line in err.splitlines() if line.startswith("error")] == [
        "modelyard.yaml:2:",
        "modelyard.yaml:3:",
        "modelyard.yaml:4:",
    ]
    assert main(["check", "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    said = json.loads(out)
    assert not said["ok"]
    assert [p["code"] for p in said["problems"]] == ["spec-missing-file", "spec-unknown-field", "spec-unknown-field"]


def test_another_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "other.yaml").write_text(RIGHT)
    assert main(["check", "-f", "other.yaml"]) == 0
    assert capsys.readouterr().out.startswith("other.yaml: ok")
    assert main(["check", "-f", "othr.yaml"]) == 2
    assert "`other.yaml`" in capsys.readouterr().err


HOOKS = RIGHT + "triggers:\n  a: {webhook: {secret: ONE}}\n  b: {webhook: {secret: [TWO, 'file:two']}}\n"


@pytest.mark.parametrize(
    ("one", "two", "file", "places"),
    [
        ("a secret of some length", "a secret of some length", "another one, long enough", "`ONE` and `TWO`"),
        # The same key, once as it is and once in base 64.
        ("a secret of some length", None, "whsec_YSBzZWNyZXQgb2Ygc29tZSBsZW5ndGg=\n", "`ONE` and `file:two`"),
        ("a secret of some length", "another one, long enough", "whsec_!!", ""),
        ("", "", "", ""),
        (None, None, None, ""),
    ],
)
def test_one_secret_under_two_names_is_warned_of(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    one: str | None,
    two: str | None,
    file: str | None,
    places: str,
) -> None:
    for name, value in (("ONE", one), ("TWO", two)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    if file is not None:
        (folder / "two").write_text(file)
    (folder / "modelyard.yaml").write_text(HOOKS)
    assert main(["check"]) == 0
    err = capsys.readouterr().err
    assert bool(places) == ("warning[secret-shared] modelyard.yaml:7: " in err)
    assert places in err
    assert main(["check", "--json"]) == 0
    out = capsys.readouterr().out
    assert [w["code"] for w in json.loads(out)["warnings"]] == ["secret-shared"] * bool(places)
    assert "some length" not in err + out


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(yaml.safe_load(RIGHT))) == []
    assert list(validator.iter_errors(yaml.safe_load(RIGHT + "purpos: x\n")))
    assert main(["schema", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == schema


def test_a_pipe_that_nobody_writes_into_is_not_waited_for(folder: Path) -> None:
    (folder / "a.csv").unlink()
    os.mkfifo(folder / "a.csv")
    (folder / "modelyard.yaml").write_text(RIGHT)
    command = [sys.executable, "-m", "modelyard", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "modelyard.yaml: ok: 1 table, 4 candidates, 2 checks\n")
