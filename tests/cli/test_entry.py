"""Ctrl-C before a verb is at work ends the process at once and quietly, wherever it comes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.typed import typed

from modelyard.cli.main import main

ROOT = Path(__file__).parents[2]
(ENTRY,) = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values())
MODULE, FUNCTION = ENTRY.split(":")
# What an installer writes for it.
SCRIPT = ["-c", f"import sys; from {MODULE} import {FUNCTION}; sys.exit({FUNCTION}())"]

# Stands in for a module that is loaded early, and is interrupted meanwhile.
INTERRUPTED = """
import signal, sys
signal.raise_signal(signal.SIGINT)
sys.path.remove({folder!r})
del sys.modules[__name__]
__import__(__name__)
"""


@pytest.fixture(params=["argparse", "msgspec", "yaml"])
def interrupted(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return the environment in which a signal comes while a module is loaded."""
    folder = tmp_path / "stands-in"
    folder.mkdir()
    (folder / f"{request.param}.py").write_text(INTERRUPTED.format(folder=str(folder)))
    return {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize("how", [SCRIPT, ["-m", "modelyard"]], ids=["script", "module"])
def test_ctrl_c_while_modules_are_loaded_ends_the_process_quietly(how: list[str], interrupted: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, *how, "check"], env=interrupted, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_who_has_ctrl_c_ignored_keeps_it_so(interrupted: dict[str, str], tmp_path: Path) -> None:
    # A shell without job control starts a job in the background so.
    line = ["/bin/sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, *SCRIPT, "check", "-f", "none.yaml"]
    done = subprocess.run(line, cwd=tmp_path, env=interrupted, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "none.yaml" in done.stderr


def test_who_imports_modelyard_keeps_the_handler() -> None:
    code = f"import signal, modelyard, {MODULE}, modelyard.cli.main, modelyard.__main__\n"
    code += "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", code], check=True)


# What is loaded once Ctrl-C raises again, and before the verb has a handler of its own.
LATE = """
import json, signal, sys
class Ear:
    late = []
    def find_spec(self, name, path=None, target=None):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self.late.append(name)
sys.meta_path.insert(0, Ear())
from {module} import {function} as main
Ear.late.clear()
code = main()
raises = signal.getsignal(signal.SIGINT) is not signal.SIG_DFL
print(json.dumps([code, raises, [name for name in Ear.late if name.partition(".")[0] in ("modelyard", "msgspec")]]))
"""


@pytest.mark.parametrize("verb", ["check", "lint", "plan", "run"])
def test_what_a_verb_begins_with_is_loaded_before_ctrl_c_raises(verb: str, tmp_path: Path) -> None:
    typed(tmp_path, "init")
    if verb == "run":
        # What it begins with is the same where the file says that there is nothing to learn from.
        (tmp_path / "data/samples.csv").write_text("")
    code = LATE.format(module=MODULE, function=FUNCTION)
    done = subprocess.run([sys.executable, "-c", code, verb], cwd=tmp_path, capture_output=True, text=True, check=False)
    _, raises, late = json.loads(done.stdout.splitlines()[-1])
    assert raises
    assert late == []


# It comes while msgspec learns the types of the file.
LEARNING = """
import signal, typing
from modelyard.spec.shape import root_shape
learn, learnt = typing.ForwardRef.__init__, []
def interrupted(*args, **kwargs):
    learnt.append(args)
    if len(learnt) == 50:  # in the midst of it
        signal.raise_signal(signal.SIGINT)
    learn(*args, **kwargs)
typing.ForwardRef.__init__ = interrupted
try:
    root_shape()
except KeyboardInterrupt:
    print("stopped,", len(learnt) - 50, "later")
"""


def test_a_stop_waits_until_types_are_learnt() -> None:
    # What is half learnt may crash the process, sometimes.
    done = subprocess.run([sys.executable, "-c", LEARNING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"stopped, [1-9]\d* later\n", done.stdout)


class Interrupted:
    def __set_name__(self, owner: type, name: str) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_stop_while_a_class_is_made_is_told_as_a_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(args: object) -> int:
        type("Made", (), {"field": Interrupted()})
        return 0

    monkeypatch.setattr("modelyard.cli.explain.run", made)
    assert main(["explain", "model"]) == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"
