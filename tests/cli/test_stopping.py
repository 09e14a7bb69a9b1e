"""A verb is stopped by Ctrl-C or SIGTERM, says by which, and not at all where its caller ignores Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from modelyard.cli.main import _exit_code
from modelyard.cli.stopping import stoppable


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_what_stopped_a_verb_is_said(number: signal.Signals, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    stoppable()
    with pytest.raises(KeyboardInterrupt) as caught:
        os.kill(os.getpid(), number)
    assert _exit_code(caught.value, "predict") == 130
    assert capsys.readouterr().err == f"stopped by {said}\n"


def test_a_stop_that_was_swallowed_is_raised_again() -> None:
    stopped = stoppable()
    stopped()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
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
