"""What steps used, against what they really did."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from modelyard._kit.errors import Spent, StepFailed
from modelyard.pipeline import run
from modelyard.pipeline.accounting import Meter
from modelyard.pipeline.cost import costs
from modelyard.pipeline.executors import LocalExecutor
from modelyard.records import Budget, Plan, Prices, Resources, Retry, Run, Step, Usage
from modelyard.store import open_store

MB = 1_000_000
OWN = Resources(own_process=True)

MODULE = '''
import os, subprocess, sys, time

def burn(seconds: float) -> float:
    """Use so much CPU time, however busy the machine is."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return seconds

CHILD = "import time; end = time.process_time() + %r\\nwhile time.process_time() < end: pass\\n"

def burn_in_a_child(seconds: float, wait: bool = True) -> float:
    child = subprocess.Popen([sys.executable, "-c", CHILD % seconds + ("" if wait else "time.sleep(600)")])
    if wait:
        child.wait()
    else:
        burned = 0.0
        while burned < seconds:
            time.sleep(0.01)
            fields = open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()
            burned = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds

def hold(size: int, seconds: float = 0.0) -> int:
    held = bytearray(os.urandom(1000) * (size // 1000))
    time.sleep(seconds)
    return len(held)

def write(path: str, size: int) -> int:
    with open(path, "wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    return size

def fail_after(seconds: float) -> None:
    burn(seconds)
    raise OSError("it may pass")
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "steps_of_accounting.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("steps_of_accounting", None)
    yield tmp_path
    sys.modules.pop("steps_of_accounting", None)


def step(name: str, function: str, *, resources: Resources = OWN, **given: object) -> Step:
    known = {name: given.pop(name) for name in ("after", "timeout", "retry") if name in given}
    verb = f"steps_of_accounting:{function}"
    return msgspec.structs.replace(Step(name=name, verb=verb, params=given, resources=resources), **known)


def done(project: Path, *steps: Step) -> Run:
    return run(Plan(project="p", steps=steps), open_store(project))


@pytest.mark.parametrize("own", [False, True], ids=["here", "own-process"])
def test_cpu_time_is_that_of_the_step_and_its_children(project: Path, own: bool) -> None:
    where = Resources(own_process=own)
    finished = done(
        project,
        step("idle", "hold", resources=where, size=1000),
        step("burn", "burn", resources=where, after=("idle",), seconds=0.3),
        step("child", "burn_in_a_child", resources=where, after=("burn",), seconds=0.3),
        step("after", "hold", resources=where, after=("child",), size=1000),
    )
    cpu = {s.name: s.usage.cpu_seconds for s in finished.steps}
    assert 0.29 < cpu["burn"] < 0.45
    assert 0.29 < cpu["child"] < 0.6
    assert cpu["idle"] < 0.2
    assert cpu["after"] < 0.2
    assert finished.step("burn").cpu_seconds == cpu["burn"]


def test_a_child_that_goes_on_counts_for_the_step_in_which_it_worked(project: Path) -> None:
    finished = done(
        project,
        step("starts", "burn_in_a_child", seconds=0.3, wait=False),
        step("after", "burn", after=("starts",), seconds=0.01),
    )
    assert finished.step("starts").usage.cpu_seconds > 0.28
    assert finished.step("after").usage.cpu_seconds < 0.2


def test_the_peak_is_the_steps_own_and_not_that_of_those_before_it(project: Path) -> None:
    finished = done(
        project,
        step("small", "hold", size=MB),
        step("large", "hold", after=("small",), size=300 * MB, seconds=0.2),
        step("last", "hold", after=("large",), size=2 * MB),
    )
    peak = {s.name: s.usage.peak_bytes for s in finished.steps}
    assert peak["large"] > 300 * MB
    assert peak["small"] < 200 * MB
    assert peak["last"] < 200 * MB
    large = finished.step("large")
    assert 0.3 * 0.2 < large.usage.gb_seconds < 1.5 * large.seconds


def test_in_the_runners_process_memory_is_at_least_what_the_process_held(project: Path) -> None:
    finished = done(project, step("here", "hold", resources=Resources(), size=50 * MB, seconds=0.05))
    used = finished.step("here").usage
    assert used.peak_bytes > 10 * MB
    assert used.gb_seconds == pytest.approx(used.peak_bytes * finished.step("here").seconds / 1e9, rel=0.01)


@pytest.mark.parametrize("own", [False, True], ids=["here", "own-process"])
def test_bytes_that_go_to_the_disk_are_counted(project: Path, own: bool) -> None:
    before = written()
    (project / "probe").write_bytes(b"x" * 4 * MB)
    if written() - before < 4 * MB:
        pytest.skip("this file system is in memory")
    finished = done(
        project, step("w", "write", resources=Resources(own_process=own), path=str(project / "f"), size=8 * MB)
    )
    assert 8 * MB <= finished.step("w").usage.written_bytes < 12 * MB


def written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def test_a_step_under_way_is_accounted_for_while_it_runs(project: Path) -> None:
    from modelyard.pipeline.execute import Task

    executor = LocalExecutor(open_store(project), grace=0.2)
    assert executor.used() == Usage()
    task = Task(step=step("burn", "burn", seconds=600), key="k", code="c")
    assert executor.room(task)
    assert executor.submit(task) is None
    deadline = time.monotonic() + 60
    while executor.used().cpu_seconds < 0.2:
        assert time.monotonic() < deadline
        assert executor.wait(0.05) == []
    assert executor.used().gb_seconds > 0
    ((cut, used),) = executor.close()
    assert cut is task
    assert used.cpu_seconds >= 0.2
    assert used.peak_bytes > 5 * MB
    assert executor.used() == Usage()


def test_what_an_attempt_used_that_was_stopped_or_failed_counts(project: Path) -> None:
    store = open_store(project)
    plan = Plan(
        project="p",
        steps=(step("slow", "burn", seconds=600, timeout=1.0, retry=Retry(times=0)),),
    )
    with pytest.raises(StepFailed, match="timeout"):
        run(plan, store)
    retried = step("again", "fail_after", seconds=0.1, retry=Retry(times=1, wait=0.001))
    with pytest.raises(StepFailed):
        run(Plan(project="p", steps=(retried,)), store)
    slow, again = (store.ledger.run(r.id) for r in sorted(store.ledger.runs(), key=lambda r: r.started))
    assert slow is not None
    assert again is not None
    assert slow.step("slow").usage.cpu_seconds > 0.1
    assert again.step("again").used.cpu_seconds > 0.19


def test_the_sum_of_the_steps_is_what_the_run_used(project: Path) -> None:
    store = open_store(project)
    finished = run(
        Plan(
            project="p",
            steps=(
                step("here", "burn", resources=Resources(), seconds=0.05),
                step("own", "burn", seconds=0.05),
                step("memory", "hold", resources=Resources(memory=300 * MB), size=20 * MB),
            ),
        ),
        store,
    )
    (cost,) = costs(store, since=0.0, until=time.time() + 1).runs
    total = sum((s.used for s in finished.steps), Usage())
    assert msgspec.structs.asdict(cost.usage) == pytest.approx(msgspec.structs.asdict(total))
    assert cost.usage.cpu_seconds > 0.1


def test_a_run_that_is_stopped_for_its_budget_has_cost_as_much(project: Path) -> None:
    """What was under way when the money was spent is part of what was spent."""
    store = open_store(project)
    budget = Budget(prices=Prices(cpu_hour=3600.0), per_run=0.3)
    with pytest.raises(Spent):
        run(Plan(project="p", steps=(step("burn", "burn", seconds=600),)), store, budget=budget)
    (stopped,) = (store.ledger.run(r.id) for r in store.ledger.runs())
    assert stopped is not None
    assert stopped.status == "stopped"
    assert stopped.step("burn").status == "interrupted"
    assert stopped.step("burn").usage.cpu_seconds > 0.3
    (cost,) = costs(store, since=0.0, until=time.time() + 1).runs
    assert cost.usage == stopped.step("burn").usage


def test_a_meter_measures_nothing_where_nothing_happens() -> None:
    meter = Meter()
    used = meter.usage(0.0)
    assert used.cpu_seconds < 0.05
    assert used.gb_seconds == 0.0
    assert used.written_bytes == 0
