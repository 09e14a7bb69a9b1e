"""Steps in worker processes: side by side, and safe when one dies."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import modelyard
from modelyard import Flow
from modelyard._kit.errors import StepFailed

MODULE = '''
import os, signal, time

def meet(folder: str, mine: str, other: str) -> int:
    """Wait for the other step: this ends only if both run at once."""
    open(os.path.join(folder, mine), "w").close()
    deadline = time.monotonic() + 30
    while not os.path.exists(os.path.join(folder, other)):
        if time.monotonic() > deadline:
            raise TimeoutError("the other step never started")
        time.sleep(0.01)
    return os.getpid()

def die(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x

def chatty(x: int) -> int:
    print("hello from a step")
    return x
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    (tmp_path / "own_steps.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_steps", None)
    import own_steps  # type: ignore[import-not-found]

    yield own_steps
    sys.modules.pop("own_steps", None)


def test_branches_run_side_by_side_in_processes(module: object, tmp_path: Path) -> None:
    flow = Flow("f")
    for mine, other in (("a", "b"), ("b", "a")):
        flow.step(module.meet, name=mine, own_process=True, folder=str(tmp_path), mine=mine, other=other)  # type: ignore[attr-defined]
    run = modelyard.run(flow, project=tmp_path)
    assert len({run["a"], run["b"], os.getpid()}) == 3


def test_a_worker_that_dies_is_a_failed_step_with_its_signal(module: object, tmp_path: Path) -> None:
    flow = Flow("f")
    flow.step(module.die, own_process=True, retries=0, x=1)  # type: ignore[attr-defined]
    with pytest.raises(StepFailed, match="SIGKILL") as caught:
        modelyard.run(flow, project=tmp_path)
    assert caught.value.code == "worker-died"


def test_what_a_step_prints_does_not_reach_stdout(
    module: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flow = Flow("f")
    flow.step(module.chatty, own_process=True, x=1)  # type: ignore[attr-defined]
    modelyard.run(flow, project=tmp_path)
    printed = capfd.readouterr()
    assert "hello" not in printed.out
    assert "hello" in printed.err


def test_a_worker_that_dies_while_idle_is_replaced(module: object, tmp_path: Path) -> None:
    from modelyard.pipeline import run as run_plan
    from modelyard.pipeline.executors import LocalExecutor

    store = modelyard.open_project(tmp_path)
    executor = LocalExecutor(store, workers=1)
    for x in (1, 2):
        flow = Flow("f")
        flow.step(module.chatty, own_process=True, x=x)  # type: ignore[attr-defined]
        run = run_plan(flow.plan(), store, executor=executor, functions=flow.functions)
        assert run["chatty"] == x
        assert executor._pool is not None
        for worker in executor._pool.workers:
            os.kill(worker.pid, signal.SIGKILL)
            assert worker.gone(30)
    executor.close()
