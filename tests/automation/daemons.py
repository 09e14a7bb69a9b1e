"""Start a real daemon on a small project of plain steps, look at it, and kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.automation.base import Wanted
from modelyard.automation.fires import ask
from modelyard.records import Fire, Run
from modelyard.store import Store

SPEC = """\
project: tiny
steps:
  one: {function: "steps.py:one"}
  two: {function: "steps.py:two", inputs: {x: one}}
"""
# Each step leaves a line behind, so that what really ran can be told from what the ledger says.
STEPS = """\
import os, time

def left(text):
    fd = os.open("left.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (text + "\\n").encode())
    os.close(fd)

def one(fire):
    left("one " + str(fire["payload"]))
    return str(fire["payload"])

def two(x):
    left("two " + x)
    if x.startswith("slow"):
        time.sleep(60)
    return x + "!"
"""


def project(folder: Path, spec: str = SPEC, steps: str = STEPS) -> Path:
    """Write a project and return its declaration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steps.py").write_text(steps)
    file = folder / "modelyard.yaml"
    file.write_text(spec)
    return file


def want(store: Store, name: str, *, trigger: str = "manual", not_before: float = 0.0) -> Fire:
    """Put a fire into the queue whose payload is its name."""
    wanted = Wanted(key=name, due=time.time(), payload=name, not_before=not_before)
    fire = ask(trigger, "manual", wanted, store, actor="user:ann")
    assert fire is not None
    return fire


def left(folder: Path) -> list[str]:
    """Return what the steps left behind, in order."""
    file = folder / "left.log"
    return file.read_text().splitlines() if file.exists() else []


def until(holds: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until something holds, and return it."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)
    return value


def runs(store: Store) -> list[Run]:
    """Return the runs, oldest first."""
    return store.ledger.runs(limit=0)[::-1]


class Up:
    """A running `modelyard up`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []

    def wait_for(self, what: str, text: str = "") -> dict[str, Any]:
        """Read on until the daemon says something."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            note = json.loads(line)
            self.said.append(note)
            if note["what"] == what and text in note["text"]:
                return note  # type: ignore[no-any-return]
        raise AssertionError(f"it ended and never said {what}: {self.said}")

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        """Kill it with -9."""
        self.process.kill()
        self.process.wait(60)


@contextmanager
def up(*words: str, cwd: Path, script: str = "") -> Iterator[Up]:
    """Start `modelyard up --json` with these words, or a script that starts a daemon in another way."""
    command = ["-c", script, *words] if script else ["-m", "modelyard", "up", "--json", "--no-ui", *words]
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield Up(process)
    finally:
        process.kill()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def alive(pid: int) -> bool:
    """Say whether a process is there and no mere entry of a dead one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
