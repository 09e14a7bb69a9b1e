"""An endpoint is to be switched off while nothing can be written: what serves it is named, and its end ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.deploy.running import running

from .versions import ENDPOINT, Yard, times, until  # noqa: TID252 - the suite is not installed


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path / "project")
    yield made
    made.store.close()


MOUNTS = {
    "read-only": "mount --bind {0} {0} && mount -o remount,bind,ro {0}",
    # Not a byte is left, so that SQLite cannot even make the memory that processes share.
    "full": "cp -a {0} {0}.copy && mount -t tmpfs -o size=8m tmpfs {0} && cp -a {0}.copy/. {0} && rm -r {0}.copy && "
    "rm -f {0}/.modelyard/ledger.db-shm && (cat /dev/zero > {0}/filler 2>/dev/null; true)",
}


def switched_off(folder: Path, disk: str) -> tuple[int, str]:
    """Ask for it in a mount namespace in which nothing can be written."""
    script = f"{MOUNTS[disk].format(folder)} || exit 99; cd {folder} && "
    script += f"exec {sys.executable} -m modelyard kill {ENDPOINT} --reason harm"
    try:
        command = ["unshare", "--mount", "--map-root-user", "/bin/sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    except FileNotFoundError:
        pytest.skip("this machine has no namespaces")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine does not allow a mount of its own")
    return done.returncode, done.stderr


@pytest.mark.parametrize(("processes", "disk"), [("1", "read-only"), ("2", "read-only"), ("1", "full")])
def test_what_serves_is_named_and_its_end_ends_it(yard: Yard, processes: str, disk: str) -> None:
    model = yard.keep(times(2.0))
    yard.point(model)
    server = yard.serve(model, "--processes", processes)
    code, said = switched_off(yard.root, disk)
    assert (code, "error[kill-unwritten]" in said) == (3, True), said
    assert f"`{ENDPOINT}` is not switched off and goes on answering" in said
    assert "steps" not in said
    # One of the processes that share a port would only be started again.
    found = re.search(r"`kill ([0-9 ]+)`", said)
    assert found is not None, said
    assert found[1] == str(server.process.pid)
    os.kill(int(found[1]), signal.SIGTERM)
    until(lambda: server.process.poll() is not None)
    server.stop()
    code, said = switched_off(yard.root, disk)
    assert (code, "no server of it is seen on this machine" in said) == (3, True), said


def test_only_servers_of_this_project_and_endpoint_are_named(tmp_path: Path) -> None:
    proc = tmp_path / "proc"

    def process(pid: int, parent: int, *line: str) -> None:
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in line))
        (proc / str(pid) / "stat").write_bytes(b"%d (a (b) c) S %d 1 1" % (pid, parent))

    def serving(pid: int, parent: int, project: Path, endpoint: str) -> None:
        process(
            pid, parent, "python", "-P", "-m", "modelyard.serving", "--project", str(project), "--endpoint", endpoint
        )

    process(10, 1, "/bin/bash")
    process(11, 10, "python", "/venv/bin/modelyard", "up")
    serving(20, 10, tmp_path, "hours")
    serving(21, 20, tmp_path, "hours")
    serving(30, 11, tmp_path, "hours")
    serving(40, 10, tmp_path, "other")
    serving(50, 10, tmp_path / "elsewhere", "hours")
    # The same daemon by its other name, and by its module.
    process(12, 1, "python", "/venv/bin/yard", "up", "--drain", "0")
    process(13, 1, "python", "-m", "modelyard", "up")
    process(14, 1, "python", "-m", "modelyard.cli.main", "up")
    serving(31, 12, tmp_path, "hours")
    serving(32, 13, tmp_path, "hours")
    serving(33, 14, tmp_path, "hours")
    # What only runs in a folder of that name, or brings up something else, keeps nothing.
    process(15, 1, "/srv/modelyard/run.sh", "up")
    process(16, 1, "watch", "modelyard", "status", "up")
    serving(34, 15, tmp_path, "hours")
    serving(35, 16, tmp_path, "hours")
    # The daemon would start again what is ended below it.
    assert running(tmp_path, "hours", proc=proc) == [11, 12, 13, 14, 20, 34, 35]
    assert running(tmp_path, "hours", proc=tmp_path / "none") == []
