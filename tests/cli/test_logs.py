"""`modelyard logs`: what is shown of an id, what is followed, what is handed over."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.cli.main import main

Capture = pytest.CaptureFixture[str]
SPEC = "project: p\nsteps:\n  one: {function: steps.py:one}\n  two: {function: steps.py:two, inputs: {x: one}}\n"
STEPS = """\
import logging
import time
from pathlib import Path


def one():
    print("from one")
    return 1


def two(x):
    logging.getLogger("steps").warning("careful")
    if Path("wait").exists():
        print("waiting")
        while Path("wait").exists():
            time.sleep(0.02)
        print("no more")
    return x
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "modelyard.yaml").write_text(SPEC)
    (tmp_path / "steps.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def told(capsys: Capture) -> Callable[..., list[dict[str, Any]]]:
    def tell(*arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["logs", *arguments, "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return tell


def test_the_newest_run_or_one_that_is_named(project: Path, told: Callable[..., Any], capsys: Capture) -> None:
    first = modelyard.run()
    (project / "steps.py").write_text(STEPS.replace("from one", "from the new one"))
    second = modelyard.run()
    said = [line["message"] for line in told() if line["logger"] != "ledger"]
    assert said == ["from the new one", "careful"]
    assert {line["run"] for line in told()} == {second.id}
    assert {line["run"] for line in told(first.id)} == {first.id}
    assert [line["message"].split(" in ")[0] for line in told(first.trace, "--step", "one")] == [
        "started",
        "from one",
        "finished",
    ]
    assert {line["run"] for line in told("--since", "1h")} == {first.id, second.id}
    assert told("--since", "2001-01-01T00:00") == told("--since", "1h")
    assert told("--since", "2999-01-01") == []
    assert main(["logs"]) == 0
    text = capsys.readouterr().out
    assert "  warning  two                  steps: careful\n" in text
    assert "  info     one                  from the new one\n" in text


def test_a_run_is_followed_until_it_ends(project: Path) -> None:
    (project / "wait").touch()
    runner = subprocess.Popen([sys.executable, "-m", "modelyard", "run"], stderr=subprocess.DEVNULL)
    try:
        with modelyard.open_project() as store:
            until = time.monotonic() + 60
            while not (runs := store.ledger.runs(limit=1)) and time.monotonic() < until:
                time.sleep(0.02)
        with subprocess.Popen(
            [sys.executable, "-m", "modelyard", "logs", runs[0].id, "--follow", "--json"],
            stdout=subprocess.PIPE,
            text=True,
        ) as follower:
            assert follower.stdout is not None
            seen = []
            for raw in follower.stdout:
                seen.append(json.loads(raw))
                if seen[-1]["message"] == "waiting":
                    (project / "wait").unlink()
            assert follower.wait(60) == 0
    finally:
        (project / "wait").unlink(missing_ok=True)
        assert runner.wait(60) == 0
    messages = [line["message"] for line in seen]
    for message in ("from one", "careful", "waiting", "no more", "run succeeded"):
        assert messages.count(message) == 1, message
    assert messages[-1] == "run succeeded"


def test_what_waits_for_a_sink_is_handed_over_or_counted(project: Path, capsys: Capture) -> None:
    (project / "modelyard.yaml").write_text(f"{SPEC}logs: {{to: 'syslog:/nowhere/log'}}\n")
    modelyard.run()
    capsys.readouterr()
    assert main(["logs", "--send"]) == 3
    assert "lines wait for syslog: `/nowhere/log` takes nothing" in capsys.readouterr().out
    (project / "modelyard.yaml").write_text(SPEC)
    assert main(["logs", "--send"]) == 0
    assert "no sink is declared" in capsys.readouterr().err


def test_what_cannot_be_understood_is_refused(project: Path, capsys: Capture) -> None:
    assert main(["logs"]) == 2
    assert "error[project-not-found]" in capsys.readouterr().err
    modelyard.run()
    capsys.readouterr()
    for arguments, code in (
        (["run-0"], "id-not-found"),
        (["0" * 32], "id-not-found"),
        (["no-such-request"], "id-not-found"),
        (["--since", "yesterday"], "cli-value"),
        (["--requests", "-1"], "cli-value"),
    ):
        assert main(["logs", *arguments]) == 2, arguments
        assert f"error[{code}]" in capsys.readouterr().err


def test_a_step_that_nobody_knows_is_refused_with_near_names(project: Path, capsys: Capture) -> None:
    first = modelyard.run()
    spec = (project / "modelyard.yaml").read_text()
    (project / "modelyard.yaml").write_text(spec.replace("  two:", "  other:"))
    second = modelyard.run()
    capsys.readouterr()
    for arguments in (["--step", "oen"], ["--follow", "--step", "oen"], ["--since", "1h", "--step", "oen"]):
        assert main(["logs", *arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert out == ""
        assert "error[step-not-found]: no step `oen`" in err
        assert "`one`" in err
    # Of the runs that are asked for.
    assert main(["logs", second.id, "--step", "two"]) == 2
    assert "there is: one, other" in capsys.readouterr().err
    for arguments in ([first.id, "--step", "two"], ["--since", "1h", "--step", "two"]):
        assert main(["logs", *arguments]) == 0
        assert "careful" in capsys.readouterr().out


def test_a_step_that_has_not_begun_is_known(project: Path, capsys: Capture) -> None:
    (project / "steps.py").write_text(STEPS.replace("def one():", "def one():\n    raise ValueError"))
    with pytest.raises(modelyard.ModelyardError):
        modelyard.run()
    capsys.readouterr()
    assert main(["logs", "--step", "two"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_list_of_no_runs_is_refused(project: Path, capsys: Capture, limit: str) -> None:
    modelyard.run()
    capsys.readouterr()
    assert main(["runs", "--limit", limit]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error[cli-value]: --limit is `{limit}`\n  hint: give 1 or more" in err
