"""How a command ends in an error: one object for programs, one text for people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.automation import every
from modelyard.cli import runs
from modelyard.cli.main import main
from modelyard.security.tokens import list_tokens

Capture = pytest.CaptureFixture[str]
SPEC = "project: p\nsteps:\n  one: {function: steps.py:one}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "modelyard.yaml").write_text(SPEC)
    (tmp_path / "steps.py").write_text("def one():\n    return 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "code", "exit_code"),
    [
        ("plan -f nope.yaml", "spec-not-found", 2),
        ("run -f nope.yaml", "spec-not-found", 2),
        ("status -f nope.yaml", "", 2),
        ("runs --limit 0", "cli-value", 2),
        ("loadtest --seconds 1", "cli-value", 2),
        ("lint --at-least 900", "cli-value", 2),
        ("token add --role king", "token-name", 2),
        ("token list ana", "cli-value", 2),
        ("kill nope --reason x", "project-not-found", 2),
        ("predict rows.csv", "project-not-found", 2),
        ("contract diff one", "contract-names", 2),
    ],
)
def test_each_error_is_one_object_on_stdout_and_a_text_on_stderr(
    project: Path, capsys: Capture, line: str, code: str, exit_code: int
) -> None:
    assert main([*line.split(), "--json"]) == exit_code
    said = capsys.readouterr()
    told = json.loads(said.out.splitlines()[-1])
    assert told["ok"] is False
    (problem,) = told["problems"]
    assert set(problem) == {"code", "where", "message", "hint"}
    assert problem["code"] == code or not code
    assert f"error[{problem['code']}]" in said.err
    assert problem["message"] in said.err


def test_nothing_for_programs_where_nobody_asked(project: Path, capsys: Capture) -> None:
    assert main(["kill", "nope", "--reason", "x"]) == 2
    assert capsys.readouterr().out == ""


def test_a_stream_of_events_ends_in_one_of_its_own_kind(project: Path, capsys: Capture) -> None:
    Path("steps.py").write_text("def one():\n    raise ValueError('odd')\n")
    assert main(["run", "--json"]) == 3
    *events, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["kind"] == "run.finished"
    assert last["kind"] == "error"
    assert last["ok"] is False
    assert "odd" in last["problems"][0]["message"]


def test_what_is_told_between_two_times_is_told_to_programs_too(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("steps.py").write_text("def one():\n    raise ValueError('odd')\n")

    def twice(seconds: float, action: Callable[[], None], **_: object) -> None:
        every(seconds, action, times=2, wait=lambda _: False)

    monkeypatch.setattr("modelyard.automation.every", twice)
    assert main(["run", "--json", "--every", "1s"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["ok"] for one in told if one["kind"] == "error"] == [False, False]


def test_every_mistake_of_a_file_is_listed(project: Path, capsys: Capture) -> None:
    Path("modelyard.yaml").write_text("project: p\ntargt: x\nmodle: {}\n")
    assert main(["plan", "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) > 1


def test_a_mistake_of_ours_is_told_alike(project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise RuntimeError("broken")

    monkeypatch.setattr(runs, "run", broken)
    assert main(["runs", "--json"]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out)["problems"][0]["code"] == "internal"
    assert "error[internal]: RuntimeError: broken" in said.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_takes_nothing_is_told_on_stderr(project: Path) -> None:
    main(["run"])
    # Python may hand over what is written at once, or at the end.
    for buffered in ({}, {"PYTHONUNBUFFERED": "1"}):
        for line in (["runs"], ["runs", "--json"], ["token", "add", "ana"]):
            with Path("/dev/full").open("w") as full:
                ended = subprocess.run(
                    [sys.executable, "-m", "modelyard", *line],
                    stdout=full,
                    stderr=subprocess.PIPE,
                    text=True,
                    check=False,
                    env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | buffered,
                )
            assert ended.returncode == 2
            assert "error[disk-full]: no space left on the disk of standard output" in ended.stderr
            assert "Exception ignored" not in ended.stderr
            assert "Traceback" not in ended.stderr
    # A token that nobody has seen is none.
    assert list_tokens(project) == []


def test_output_as_it_is_that_takes_nothing_is_told_alike(project: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is always full")
    script = "import sys; from modelyard.cli.output import as_it_is; as_it_is({})"
    for content in ("'x' * 100_000", "b'x' * 100_000"):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-c", script.format(content)]
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert "No space left on device: '<stdout>'" in ended.stderr
    line = ["nginx", *(f"10.0.{n // 250}.{n % 250}:8080" for n in range(2000))]
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "modelyard", *line]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert "error[disk-full]: no space left on the disk of standard output" in ended.stderr


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_token_that_nobody_reads_is_said_to_be_revoked(project: Path, more: list[str]) -> None:
    main(["run"])
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "modelyard", "token", "add", "ana", *more]
    with os.fdopen(writer, "wb") as gone:
        ended = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert "error[token-unseen]: nobody read the token of `ana`, so it is revoked" in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert list_tokens(project) == []


@pytest.mark.parametrize("line", ["serve", "loadtest", "token list", "predict rows.csv"])
def test_without_a_file_nobody_is_told_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a\n1\n")
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert "`modelyard init`" in said
    assert "`modelyard run`" not in said
