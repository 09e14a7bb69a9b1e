"""A verb is stopped by Ctrl-C or SIGTERM, says by which, and not at all where its caller ignores Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.automation.daemons import until

from modelyard.cli.main import _exit_code, main
from modelyard.cli.stopping import stoppable
from modelyard.store import open_store


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize(("number", "said", "code"), [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)])
def test_what_stopped_a_verb_is_said(
    number: signal.Signals, said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    stoppable()
    with pytest.raises(KeyboardInterrupt) as caught:
        signal.raise_signal(number)  # to this thread, wherever others run
    assert _exit_code(caught.value, "predict") == code
    assert capsys.readouterr().err == f"stopped by {said}\n"


def test_a_stop_that_was_swallowed_is_raised_again() -> None:
    stopped = stoppable()
    stopped()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)  # to this thread, wherever others run
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        stopped()


IGNORED = """
import os, re, signal
from pathlib import Path
from modelyard.cli.stopping import stoppable
stopped = stoppable()
import polars
os.kill(os.getpid(), signal.SIGINT)
stopped()
caught = int(re.search(r"SigCgt:\\s*(\\w+)", Path("/proc/self/status").read_text())[1], 16)
assert not caught & 1 << signal.SIGINT - 1, "something hears it"
"""


def test_a_job_in_the_background_of_a_script_does_not_hear_ctrl_c() -> None:
    # A shell without job control starts such a job with SIGINT ignored; Polars would hear it all the same.
    command = ["/bin/sh", "-c", '"$0" -c "$1" & wait $!', sys.executable, IGNORED]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr


STEPS = """
import time
from pathlib import Path

def slow():
    Path("begun").touch()
    time.sleep(60)

def part(partition):
    slow()
"""


@pytest.mark.parametrize(("number", "said", "code"), [("SIGINT", "Ctrl-C", 130), ("SIGTERM", "SIGTERM", 143)])
@pytest.mark.parametrize(
    ("words", "step"),
    [
        (("run",), "{function: steps.py:slow}"),
        pytest.param(("run", "--json"), "{function: steps.py:slow}", marks=pytest.mark.thorough),
        pytest.param(("run", "--every", "1h"), "{function: steps.py:slow}", marks=pytest.mark.thorough),
        pytest.param(
            ("backfill", "one", "--from", "2026-01-01", "--to", "2026-01-01"),
            "{function: steps.py:part, partition: daily}",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_a_run_says_what_stopped_it(
    tmp_path: Path, words: tuple[str, ...], step: str, number: str, said: str, code: int
) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "modelyard.yaml").write_text(f"project: slow\nsteps: {{one: {step}}}\n")
    with typed(tmp_path, *words) as process:
        until(lambda: (tmp_path / "begun").exists() or process.poll() is not None)
        process.send_signal(getattr(signal, number))
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"stopped by {said}" in err
    with open_store(tmp_path) as store:
        (run,) = store.ledger.runs()
        assert (run.status, run.reason) == ("cancelled", f"stopped by {said}")


@pytest.mark.parametrize(("number", "said", "code"), [("SIGINT", "Ctrl-C", 130), ("SIGTERM", "SIGTERM", 143)])
@pytest.mark.parametrize("words", [("--follow", "--since", "1h"), ("--send", "--follow")])
def test_logs_says_what_stopped_it(tmp_path: Path, words: tuple[str, ...], number: str, said: str, code: int) -> None:
    (tmp_path / "steps.py").write_text("def one():\n    return 1\n")
    (tmp_path / "modelyard.yaml").write_text(
        "project: quick\nsteps: {one: {function: steps.py:one}}\nlogs: {to: [syslog]}\n"
    )
    assert main(["run", "-f", str(tmp_path / "modelyard.yaml")]) == 0
    with typed(tmp_path, "logs", *words) as process:
        # It has begun to follow once it has said something.
        stream = process.stderr if "--send" in words else process.stdout
        assert stream is not None
        assert stream.readline()
        process.send_signal(getattr(signal, number))
        _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"stopped by {said}" in err


@pytest.mark.parametrize(
    ("words", "ends"),
    [(("run",), "cancel"), pytest.param(("up", "--no-ui", "--no-serve"), "down", marks=pytest.mark.thorough)],
)
def test_who_finds_a_project_at_work_is_told_what_ends_it(
    tmp_path: Path, words: tuple[str, ...], ends: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "modelyard.yaml").write_text("project: slow\nsteps: {one: {function: steps.py:slow}}\n")
    file = ("-f", str(tmp_path / "modelyard.yaml"))
    with typed(tmp_path, *words) as process:
        if ends == "down":
            until(lambda: process.poll() is not None or main(["triggers", "fire", "manual", *file]) == 0)
        until(lambda: (tmp_path / "begun").exists() or process.poll() is not None)
        capsys.readouterr()
        assert main(["run", *file]) == 4
        told = capsys.readouterr().err
        assert f"`modelyard {words[0]}`, process " in told
        assert f"`modelyard {ends}`" in told
        assert "kill" not in told
        assert main([ends, *(["--now"] if ends == "down" else []), *file]) == 0
        process.communicate(timeout=60)
    with open_store(tmp_path) as store:
        assert store.holder("run") is None


@contextmanager
def typed(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    line = [sys.executable, "-u", "-m", "modelyard", *words]
    with subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
