"""A disk that fills under `modelyard up`: the daemon lives, says so once, and goes on when there is space."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.automation.daemons import SPEC, project

from modelyard.automation.daemon import Daemon, Settings
from modelyard.automation.dispatch import Dispatcher

pytestmark = pytest.mark.thorough

# Inside a mount namespace: `.modelyard` on a small disk of its own, filled under a living daemon, then freed.
DRILL = """
import os, subprocess, sys, time
from pathlib import Path
from modelyard.automation.state import published

here, file = Path("."), Path("modelyard.yaml")
yard = [sys.executable, "-m", "modelyard"]
good = file.read_text()

def until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end and daemon.poll() is None
        time.sleep(0.05)

os.mkdir(".modelyard")
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", ".modelyard"]).returncode:
    sys.exit(99)
with open("up.txt", "wb") as out:
    daemon = subprocess.Popen([*yard, "up", "--no-ui", "--no-serve"], stdout=out, stderr=out)
try:
    until(lambda: (state := published(here)) is not None and state.ready)
    with open(".modelyard/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1024))
        except OSError:
            pass
    # How it stands changes, and cannot be written.
    file.write_text("project: [")
    until(lambda: "cannot be written" in Path("up.txt").read_text())
    os.unlink(".modelyard/filler")
    until(lambda: "not taken over" in published(here).problem)
    file.write_text(good)
    until(lambda: not published(here).problem)
    subprocess.run([*yard, "triggers", "fire", "manual"], check=True, capture_output=True)
    until(lambda: "succeeded" in subprocess.run([*yard, "runs", "--json"], capture_output=True, text=True).stdout)
    beat = published(here).beat
    until(lambda: published(here).beat > beat)
    daemon.terminate()
    Path("done").write_text(str(daemon.wait(60)))
finally:
    daemon.kill()
"""


def test_a_disk_that_fills_under_the_daemon_does_not_end_it(tmp_path: Path) -> None:
    project(tmp_path)
    command = ["unshare", "--mount", "--map-root-user", sys.executable, "-c", DRILL]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    if done.returncode == 99 or "unshare:" in done.stderr:
        pytest.skip("this machine does not allow a mount of its own")
    said = (tmp_path / "up.txt").read_text()
    assert (tmp_path / "done").exists(), f"{done.stderr}\n{said}"
    assert (tmp_path / "done").read_text() == "0"
    assert said.count("cannot be written") == 1
    assert "Traceback" not in said


def test_a_daemon_that_lost_a_part_ends_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(Exception):
        pass

    async def work(self: Dispatcher) -> None:
        self.looked.set()
        await asyncio.sleep(0)
        raise Lost("nobody knows why")

    monkeypatch.setattr(Dispatcher, "work", work)
    said: list[Any] = []
    file = project(tmp_path, SPEC)
    settings = Settings(files=(file,), ui=False, serve=False)
    assert Daemon(settings, said.append).run() == 1
    assert [note.text for note in said if "died" in note.text] == [
        "a part of the daemon died, so all of it ends: Lost: nobody knows why"
    ]
