"""Memory and time limits of steps, with real processes that break them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard._kit.errors import StepFailed
from modelyard.pipeline import cgroups, run
from modelyard.pipeline.executors import LocalExecutor
from modelyard.pipeline.limits import Cage, Cages, out_of_memory
from modelyard.pipeline.pool import Pool
from modelyard.records import Plan, Resources, Retry, Step
from modelyard.store import open_store

MB = 1_000_000
ONCE = Retry(times=0)
ANY = Resources()

MODULE = '''
import mmap, os, signal, subprocess, sys, time

def eat(size: int) -> int:
    """Hold so many bytes, written to."""
    held = []
    for _ in range(size // 1_000_000):
        held.append(bytearray(os.urandom(1000) * 1000))
    return len(held)

def eat_in_a_child(size: int) -> int:
    code = "import steps_of_limits as s, sys; s.eat(int(sys.argv[1])); import time; time.sleep(30)"
    return subprocess.run([sys.executable, "-c", code, str(size)], check=True, cwd=os.path.dirname(__file__)).returncode

def fail_with_memory_error(x: int) -> int:
    raise MemoryError("Unable to allocate 7.28 TiB")

def neighbour(x: int) -> int:
    time.sleep(1.0)
    return x

def sleep(seconds: float, mark: str = "") -> float:
    try:
        time.sleep(seconds)
    finally:
        if mark:
            open(mark, "w").close()
    return seconds
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "steps_of_limits.py").write_text(MODULE)
    return tmp_path


@pytest.fixture(params=["kernel", "guard"])
def executor(request: pytest.FixtureRequest, project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    """Hold memory limits by control group, where this machine lets us make one, and by the guard."""
    if request.param == "kernel" and cgroups.parent_for_memory() is None:
        pytest.skip("no control group of ours on this machine")
    monkeypatch.syspath_prepend(project)
    executor = LocalExecutor(open_store(project), workers=2, grace=0.3)
    if request.param == "guard":
        executor._pool = Pool(project, grace=0.3, cages=Cages(cgroups.Place(Path("/nowhere"), 2)))
    yield executor
    executor.close()
    sys.modules.pop("steps_of_limits", None)


def step(
    name: str,
    function: str,
    *,
    after: tuple[str, ...] = (),
    timeout: float = 0.0,
    retry: Retry = ONCE,
    resources: Resources = ANY,
    **params: object,
) -> Step:
    return Step(
        name=name,
        verb=f"steps_of_limits:{function}",
        params=params,
        after=after,
        timeout=timeout,
        retry=retry,
        resources=resources,
    )


def plan(*steps: Step) -> Plan:
    return Plan(project="limits", steps=steps)


def test_a_step_that_takes_more_memory_than_it_asked_for_is_stopped_and_its_neighbour_goes_on(
    executor: LocalExecutor, project: Path
) -> None:
    store = open_store(project)
    steps = (
        step("neighbour", "neighbour", x=1, resources=Resources(memory=200 * MB)),
        step("eat", "eat", size=500 * MB, resources=Resources(memory=200 * MB)),
    )
    with pytest.raises(StepFailed) as caught:
        run(plan(*steps), store, executor=executor)
    assert caught.value.code == "out-of-memory"
    assert "asked for 200 MB of memory" in str(caught.value)
    assert "memory: " in caught.value.problem.hint
    (done,) = store.ledger.runs()
    finished = store.ledger.run(done.id)
    assert finished is not None
    assert finished.step("neighbour").status == "succeeded"
    eaten = finished.step("eat")
    assert eaten.status == "failed"
    assert eaten.usage.peak_bytes < 400 * MB


def test_what_a_child_of_the_step_takes_counts_as_well(executor: LocalExecutor, project: Path) -> None:
    asked = Resources(memory=150 * MB)
    with pytest.raises(StepFailed) as caught:
        run(plan(step("eat", "eat_in_a_child", size=400 * MB, resources=asked)), open_store(project), executor=executor)
    assert caught.value.code == "out-of-memory"


def test_within_its_limit_a_step_ends_and_its_worker_is_used_again(executor: LocalExecutor, project: Path) -> None:
    asked = Resources(memory=300 * MB)
    steps = [
        step("a", "eat", size=100 * MB, resources=asked),
        step("b", "eat", after=("a",), size=60 * MB, resources=asked),
    ]
    finished = run(plan(*steps), open_store(project), executor=executor)
    assert [s.status for s in finished.steps] == ["succeeded", "succeeded"]
    assert 100 * MB < finished.step("a").usage.peak_bytes < 300 * MB
    assert finished.step("b").usage.peak_bytes < finished.step("a").usage.peak_bytes


def test_out_of_memory_is_tried_once_more_with_what_the_retry_allows(executor: LocalExecutor, project: Path) -> None:
    retry = Retry(times=3, wait=0.01, memory=400 * MB)
    eat = step("eat", "eat", size=200 * MB, resources=Resources(memory=100 * MB), retry=retry)
    finished = run(plan(eat), open_store(project), executor=executor)
    (attempt,) = finished.step("eat").attempts
    assert attempt.error["code"] == "out-of-memory"
    assert finished.step("eat").status == "succeeded"


def test_a_memory_error_is_out_of_memory_too(executor: LocalExecutor, project: Path) -> None:
    for own in (False, True):
        bad = step("bad", "fail_with_memory_error", x=1, resources=Resources(own_process=own))
        with pytest.raises(StepFailed, match=r"7\.28 TiB") as caught:
            run(plan(bad), open_store(project), executor=executor)
        assert caught.value.code == "out-of-memory"


def test_a_step_past_its_timeout_is_stopped_and_may_tidy_up(executor: LocalExecutor, project: Path) -> None:
    mark = project / "tidied"
    with pytest.raises(StepFailed, match="timeout") as caught:
        run(plan(step("slow", "sleep", seconds=60, mark=str(mark), timeout=3)), open_store(project), executor=executor)
    assert caught.value.code == "step-timeout"
    assert mark.exists()


def test_a_step_within_its_timeout_is_left_alone(executor: LocalExecutor, project: Path) -> None:
    finished = run(plan(step("quick", "sleep", seconds=0.01, timeout=60)), open_store(project), executor=executor)
    assert finished.step("quick").status == "succeeded"


def test_wait_honours_its_limit(executor: LocalExecutor, project: Path) -> None:
    from modelyard.pipeline.execute import Task

    assert executor.wait(0.01) == []
    task = Task(step=step("slow", "sleep", seconds=60, timeout=60), key="k", code="c")
    assert executor.room(task)
    assert executor.submit(task) is None
    # Without its limit it would come back with the step that was stopped for its timeout.
    assert executor.wait(0.05) == []


def test_the_message_names_what_was_asked_and_what_to_ask_for() -> None:
    failure = out_of_memory(step("s", "eat", resources=Resources(memory=200 * MB)), reached=512 * MB)
    assert failure.message == "step `s` asked for 200 MB of memory and held 512 MB"
    assert "memory: 1.1 GB" in failure.hint
    kernel = out_of_memory(step("s", "eat", resources=Resources(memory=200 * MB)))
    assert "held all of it and wanted more" in kernel.message
    assert "memory: 400 MB" in kernel.hint
    assert "machine" in out_of_memory(step("s", "eat")).message


def test_a_control_group_of_version_2_is_written_as_the_kernel_wants_it(tmp_path: Path) -> None:
    """The kernel of this machine may have version 1 only: a plain folder shows what would be written."""
    cage = Cage(cgroups.Place(tmp_path, 2), "modelyard-1-1")
    assert cage.limit(200 * MB)
    folder = tmp_path / "modelyard-1-1"
    assert {f.name: f.read_text() for f in folder.iterdir()} == {
        "memory.max": "200000000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
    }
    assert cage.kills() == 0
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\noom_group_kill 1\n")
    assert cage.kills() == 2
    assert cage.limit(0)
    assert (folder / "memory.max").read_text() == "max"
    assert cage.tasks == str(folder / "cgroup.procs")
