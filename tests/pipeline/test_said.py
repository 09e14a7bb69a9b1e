"""What steps print and log, in whatever way and process, is in the logs with the ids of its run."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import modelyard
from modelyard import Run
from modelyard._kit.errors import ModelyardError
from modelyard.logs import Line, logs_folder
from modelyard.logs.read import lines
from modelyard.pipeline.capsule import opened

STEPS = """
import ctypes
import logging
import os
import signal
import subprocess
import sys


def talk():
    print("printed", 1)
    print("to stderr", file=sys.stderr)
    logging.getLogger("steps").info("logged %d", 1)


def lazily():
    import polars as pl

    def told(value):
        print("row", value)
        return value

    return pl.LazyFrame({"x": [3]}).select(pl.col("x").map_elements(told, return_dtype=pl.Int64))


def natively():
    os.write(1, b"past Python\\n")
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    print("from Python")


def much():
    os.write(2, b"y" * 300_000 + b"\\n")


def crash():
    print("about to crash")
    os.abort()


def killed():
    print("about to be killed")
    os.write(1, b"natively too\\n")
    os.kill(os.getpid(), signal.SIGKILL)


def failing():
    print("trying")
    raise ValueError("no")


def leaking():
    secret = os.environ["SHOP_TOKEN"]
    print("password", secret)
    os.write(1, f"natively {secret}\\n".encode())
    logging.getLogger("x").warning("token %s", secret)
    raise ValueError(f"bad token {secret}")
"""


def run_of(folder: Path, function: str, *, own_process: bool = False) -> Run:
    """Run a project with one step and return its run, however it ended."""
    (folder / "steps.py").write_text(textwrap.dedent(STEPS))
    step = f"{{function: steps.py:{function}, resources: {{own_process: {str(own_process).lower()}}}}}"
    (folder / "modelyard.yaml").write_text(
        f"project: p\nretries: {{times: 1, wait: 1ms}}\nsteps:\n  {function}: {step}\n"
    )
    try:
        return modelyard.run(folder / "modelyard.yaml")
    except ModelyardError:
        with modelyard.open_project(folder) as store:
            run = store.ledger.run(store.ledger.runs()[0].id)
            assert run is not None
            return run


def said(folder: Path, run: Run) -> list[Line]:
    return list(lines(logs_folder(folder), frozenset({run.trace})))


def last_lines(folder: Path, run: Run) -> tuple[str, ...]:
    with modelyard.open_project(folder) as store:
        return opened(store, run.steps[0].capsule).log


own_process = pytest.mark.parametrize("own_process", [False, True])


@own_process
def test_lines_carry_the_ids_of_the_run(tmp_path: Path, own_process: bool) -> None:
    run = run_of(tmp_path, "talk", own_process=own_process)
    found = said(tmp_path, run)
    assert [(line.logger, line.message) for line in found] == [
        ("stdout", "printed 1"),
        ("stderr", "to stderr"),
        ("steps", "logged 1"),
    ]
    assert {(line.run, line.step, line.attempt) for line in found} == {(run.id, "talk", 1)}


def test_a_cached_step_says_nothing(tmp_path: Path) -> None:
    run_of(tmp_path, "talk")
    run = run_of(tmp_path, "talk")
    assert run.step("talk").status == "cached"
    assert not said(tmp_path, run)


def test_what_a_lazy_frame_prints_while_it_is_stored_is_taken(tmp_path: Path) -> None:
    run = run_of(tmp_path, "lazily")
    assert [line.message for line in said(tmp_path, run)] == ["row 3"]


def test_what_is_written_past_python_is_taken_from_a_process_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, "natively", own_process=True)
    assert {(line.logger, line.message) for line in said(tmp_path, run)} == {
        ("native", "past Python"),
        ("native", "from C"),
        ("native", "from a child"),
        ("stdout", "from Python"),
    }
    shown = capfd.readouterr()
    # Stdout may be somebody's stream of data.
    assert not shown.out
    for text in ("past Python", "from C", "from a child", "from Python"):
        assert text in shown.err


def test_more_than_a_pipe_holds_stops_nobody(tmp_path: Path) -> None:
    run = run_of(tmp_path, "much", own_process=True)
    assert run.status == "succeeded"
    assert sum(line.message.count("y") for line in said(tmp_path, run)) >= 16_384


@pytest.mark.parametrize(
    ("function", "last"),
    [
        ("crash", ("about to crash", "Fatal Python error: Aborted", "in crash")),
        ("killed", ("about to be killed", "natively too")),
    ],
)
def test_the_last_words_of_a_process_that_died_are_in_the_capsule(
    tmp_path: Path, function: str, last: tuple[str, ...]
) -> None:
    run = run_of(tmp_path, function, own_process=True)
    assert run.steps[0].error["code"] == "worker-died"
    text = "\n".join(last_lines(tmp_path, run))
    for part in last:
        assert part in text
    # Of the last attempt only.
    assert text.count(last[0]) == 1
    assert {line.attempt for line in said(tmp_path, run)} == {1, 2}


@own_process
def test_the_last_lines_of_a_failed_step_are_in_the_capsule(tmp_path: Path, own_process: bool) -> None:
    run = run_of(tmp_path, "failing", own_process=own_process)
    assert last_lines(tmp_path, run) == ("trying",)


@own_process
def test_a_secret_of_the_environment_is_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], own_process: bool
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "swordfish-42")
    run = run_of(tmp_path, "leaking", own_process=own_process)
    assert run.status == "failed"
    # In a step of the runner's own process, what is written past Python goes to the terminal as it is.
    assert ("swordfish-42" in capfd.readouterr().out) is not own_process
    assert said(tmp_path, run)
    for path in (tmp_path / ".modelyard").rglob("*"):
        if path.is_file():
            assert b"swordfish-42" not in path.read_bytes(), path
