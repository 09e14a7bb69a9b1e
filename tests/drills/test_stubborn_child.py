"""A step starts a child that ignores SIGTERM and leaves for a session of its own: it must not survive its step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard._kit.errors import StepFailed
from modelyard.pipeline import run
from modelyard.pipeline.execute import Task
from modelyard.pipeline.executors import LocalExecutor
from modelyard.records import Plan, Resources, Retry, Step
from modelyard.store import open_store

pytestmark = pytest.mark.thorough

CHILD = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""

STEPS = """
import os, signal, subprocess, sys, time

def start(mark: str, wait: bool = True, deaf: bool = False, die: bool = False) -> int:
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), "child.py"), mark])
    while not os.path.exists(mark):
        time.sleep(0.01)
    if die:
        os._exit(7)
    return child.wait() if wait else 0
"""

RUNNER = """
import sys
from pathlib import Path
from modelyard.pipeline import run
from modelyard.records import Plan, Retry, Step
from modelyard.store import open_store

once = Retry(times=0)
step = Step(name="start", verb="stubborn_steps:start", params={"mark": sys.argv[1]}, timeout=120, retry=once)
run(Plan(project="p", steps=(step,)), open_store(Path(sys.argv[2])))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stubborn_steps.py").write_text(STEPS)
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("stubborn_steps", None)
    return tmp_path


def plan(mark: Path, *, timeout: float = 0.0, **params: object) -> Plan:
    step = Step(
        name="start",
        verb="stubborn_steps:start",
        params={"mark": str(mark), **params},
        retry=Retry(times=0),
        timeout=timeout,
        resources=Resources(own_process=True),
    )
    return Plan(project="p", steps=(step,))


def wait_for(mark: Path) -> int:
    deadline = time.monotonic() + 60
    while not mark.exists():
        assert time.monotonic() < deadline, "the child never started"
        time.sleep(0.01)
    return int(mark.read_text())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie is dead; whoever inherits it has not looked yet


@pytest.mark.parametrize("deaf", [False, True], ids=["step-listens", "step-is-deaf"])
def test_at_the_timeout_the_child_is_killed_before_the_step_is_called_stopped(project: Path, deaf: bool) -> None:
    mark = project / "mark"
    store = open_store(project)
    executor = LocalExecutor(store, grace=0.3)
    with pytest.raises(StepFailed) as caught:
        run(plan(mark, timeout=3.0, deaf=deaf), store, executor=executor)
    assert caught.value.code == "step-timeout"
    assert not alive(wait_for(mark))
    (done,) = store.ledger.runs()
    assert done.status == "failed"
    executor.close()


def test_a_step_that_crashes_leaves_no_child(project: Path) -> None:
    mark = project / "mark"
    with pytest.raises(StepFailed, match="exited with 7"):
        run(plan(mark, die=True), open_store(project))
    assert not alive(wait_for(mark))


def test_closing_the_executor_leaves_no_child_of_a_step_under_way_or_done(project: Path) -> None:
    executor = LocalExecutor(open_store(project), workers=2, grace=0.3)
    for name, wait in (("busy", True), ("done", False)):
        (step,) = plan(project / name, wait=wait).steps
        task = Task(step=step, key=name, code="c")
        assert executor.room(task)
        assert executor.submit(task) is None
    ((ended, _),) = executor.wait(60)
    assert ended.key == "done"
    pids = [wait_for(project / name) for name in ("busy", "done")]
    executor.close()
    assert not any(map(alive, pids))


def test_a_runner_that_is_killed_takes_all_with_it(project: Path) -> None:
    mark = project / "mark"
    (project / "main.py").write_text(RUNNER)
    runner = subprocess.Popen([sys.executable, str(project / "main.py"), str(mark), str(project)])
    child = wait_for(mark)
    runner.send_signal(signal.SIGKILL)
    runner.wait(60)
    deadline = time.monotonic() + 60
    while alive(child):
        assert time.monotonic() < deadline, "it survived its runner"
        time.sleep(0.01)


def test_a_guard_that_is_killed_takes_its_worker_with_it(project: Path) -> None:
    mark = project / "mark"
    executor = LocalExecutor(open_store(project))
    (step,) = plan(mark).steps
    task = Task(step=step, key="k", code="c")
    assert executor.room(task)
    assert executor.submit(task) is None
    child = wait_for(mark)
    assert executor._pool is not None
    (worker,) = executor._pool.workers
    pid = worker.pid
    worker._process.kill()
    ((_, outcome),) = executor.wait(60)
    assert outcome.failure is not None
    assert outcome.failure.code == "worker-died"
    assert not alive(pid)
    executor.close()
    os.kill(child, signal.SIGKILL)  # in a session of its own, and nobody is left who could know of it
