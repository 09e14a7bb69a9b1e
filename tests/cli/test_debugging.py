"""`show RUN STEP`, `replay` and `bisect`: from a failure to its cause, at the keyboard."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pipeline.history import History

from modelyard.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.chdir(tmp_path)
    return History(tmp_path)


def spoiled(history: History) -> str:
    """Record a good run and one whose score fails; return the id of the bad one."""
    history.run()
    history.edit("quality.py", "    rows = table", '    number = 7\n    raise KeyError("price")\n    rows = table')
    return history.run().id


def test_a_failed_step_is_shown_with_its_cause_and_what_it_had(history: History, capsys: Capture) -> None:
    bad = spoiled(history)
    assert main(["show", bad, "score"]) == 0
    said = capsys.readouterr().out
    for part in (
        "error[step-failed]",
        "quality.py:8: step `score` raised KeyError: 'price'",
        "likely code: the code of the step is wrong (`price`); the same step succeeded in run-",
        "the code: `quality.py` changed in `score`",
        "table features.table@0, 8 rows",
        "least                0.5",
        "code as it was",
        "Traceback",
        f"next: modelyard replay {bad} score",
    ):
        assert part in said, part
    assert main(["show", bad, "score", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cause"]["kind"] == "code"
    assert facts["attempt"]["arguments"] == {"least": 0.5, "weight": 1.0}
    assert facts["attempt"]["environment"]["libraries"]["polars"]
    assert list(facts["sources"]["files"]) == ["quality.py"]
    # A step of a run that went well, too.
    assert main(["show", bad, "features", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "features"


def test_replay_says_whether_the_outcome_is_the_same(history: History, capsys: Capture) -> None:
    bad = spoiled(history)
    assert main(["replay"]) == 0
    said = capsys.readouterr()
    assert "score of" in said.out
    assert "failed in" in said.out
    assert "the same" in said.out
    history.edit("quality.py", '    raise KeyError("price")\n', "")
    assert main(["replay", bad, "score"]) == 1
    said = capsys.readouterr()
    assert "another outcome" in said.out
    assert "code: `quality.py` changed in `score`" in said.out
    assert '-    raise KeyError("price")' in said.out
    assert main(["replay", bad, "--old-code", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    assert main(["replay", "features"]) == 0


def test_replay_refuses_what_it_cannot_find(history: History, capsys: Capture) -> None:
    good = history.run().id
    for line, code in (
        (["replay"], "replay-nothing-failed"),
        (["replay", good], "replay-step"),
        (["replay", good, "scor"], "step-not-found"),
        (["replay", "run-0"], "run-not-found"),
        (["replay", "scor"], "step-not-found"),
        (["replay", "score", "x"], "run-not-found"),
        (["replay", good, "score", "--pdb", "--json"], "cli-value"),
    ):
        assert main(line) == 2, line
        assert f"error[{code}]" in capsys.readouterr().err, line


def test_the_debugger_opens_in_the_foreground_at_the_users_frame(history: History) -> None:
    spoiled(history)
    # The deepest frame is in a library; the user's own stands above it.
    history.edit("quality.py", '    raise KeyError("price")\n', '    __import__("json").loads("no")\n')
    history.run()
    done = subprocess.run(
        [sys.executable, "-m", "modelyard", "replay", "--pdb"],
        input="p number * 6\np table\nq\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=history.folder,
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 42" in done.stdout
    assert "the same" in done.stdout


def test_bisect_names_the_run_the_file_and_the_commit(history: History, capsys: Capture) -> None:
    program = shutil.which("git")
    if program is None:
        pytest.skip("no git")

    def git(*words: str) -> None:
        identity = ["-c", "user.name=Ana", "-c", "user.email=ana@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run([program, *identity, *words], cwd=history.folder, check=True, capture_output=True)

    git("init", "-q")
    (history.folder / ".gitignore").write_text(".modelyard\ncards\n")
    for number in range(5):
        if number == 3:
            history.edit("helpers.py", '"price") <', '"price") >')
        else:
            history.edit("features.py", "    return rows", f"    # {number}\n    return rows")
        git("add", "-A")
        git("commit", "-q", "-m", f"Change {number}")
        history.run()
    assert main(["bisect", "--check", "share"]) == 0
    said = capsys.readouterr()
    runs = [line.split()[0] for line in said.out.splitlines() if "first bad run" in line]
    assert len(runs) == 1
    assert "the code changed" in said.out
    assert "step features, code: `helpers.py` changed in `marked`" in said.out
    assert "Ana: Change 3" in said.out
    assert '-    return rows.with_columns(good=nw.col("price") < LIMIT)' in said.out
    assert "...xx" in said.err
    assert main(["bisect", "--metric", "share_good", "--worse-than", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first_bad"] == runs[0]
    assert main(["bisect", "--metric", "share_good"]) == 2
    assert "error[bisect-question]" in capsys.readouterr().err
