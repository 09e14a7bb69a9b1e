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

from modelyard._kit.stopping import forget, stopped
from modelyard.cli.main import _exit_code, main
from modelyard.cli.stopping import stoppable
from modelyard.store import open_store


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    forget()
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
    stoppable()
    stopped()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)  # to this thread, wherever others run
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        stopped()


IGNORED = """
import os, re, signal
from pathlib import Path
from modelyard._kit.stopping import stopped
from modelyard.cli.stopping import stoppable
stoppable()
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


# Signals that get lost: Python prints and forgets an exception that is raised while an object is taken away, and it
# looks for signals between two of its own instructions only, not in a call that is about to wait.
LOST = """
import ctypes, functools, os, signal, time
from contextlib import suppress
from pathlib import Path

class Gone:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def swallowed():
    Gone()
    Path("swallowed").touch()

class Late:
    # All of it is C: no instruction of Python stands between the signal and the sleep.
    kill = ctypes.PyDLL(None).kill
    kill.restype = (300).__add__
    __index__ = staticmethod(functools.partial(kill, os.getpid(), signal.SIGTERM))

def late():
    time.sleep(Late())

def swallows(number, frame):
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)

def ready():
    signal.signal(signal.SIGUSR1, swallows)
    Path("ready").touch()

def next(before):
    Path("next").touch()
    time.sleep(300)
"""


@pytest.mark.parametrize("more", [(), ("--json",), ("--every", "1h")], ids=" ".join)
def test_a_run_ends_at_the_next_look_where_a_signal_was_swallowed(tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "steps.py").write_text(LOST)
    steps = "{one: {function: steps.py:swallowed}, two: {function: steps.py:next, inputs: {before: one}}}"
    (tmp_path / "modelyard.yaml").write_text(f"project: lost\nsteps: {steps}\n")
    with typed(tmp_path, "run", *more) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert (tmp_path / "swallowed").exists()
    assert not (tmp_path / "next").exists()
    with open_store(tmp_path) as store:
        (run,) = store.ledger.runs()
        assert (run.status, run.reason) == ("cancelled", "stopped by SIGTERM")


@pytest.mark.parametrize(
    ("more", "one"),
    [
        ((), "{function: steps.py:next, params: {before: 0}, resources: {own_process: true}}"),
        (("--every", "1h"), "{function: steps.py:ready}"),
    ],
    ids=["for a worker", "for the next time"],
)
def test_what_was_swallowed_in_a_wait_ends_it(tmp_path: Path, more: tuple[str, ...], one: str) -> None:
    (tmp_path / "steps.py").write_text(LOST)
    steps = f"{{one: {one}, two: {{function: steps.py:ready}}}}"
    (tmp_path / "modelyard.yaml").write_text(f"project: lost\nsteps: {steps}\n")
    with typed(tmp_path, "run", *more) as process:
        assert process.stderr is not None
        if more:
            assert any(line.startswith("again in") for line in process.stderr)
        else:
            until(lambda: all((tmp_path / one).exists() for one in ("ready", "next")) or process.poll() is not None)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "stopped by SIGTERM" in err


def test_a_signal_is_heard_that_came_just_before_a_wait(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(LOST)
    (tmp_path / "modelyard.yaml").write_text("project: lost\nsteps: {one: {function: steps.py:late}}\n")
    with typed(tmp_path, "run") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "stopped by SIGTERM" in err


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
