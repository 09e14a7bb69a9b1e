"""What starts first, and what is taken in while the runner is busy itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.pipeline import run
from modelyard.pipeline.execute import Outcome, Task
from modelyard.pipeline.executors import LocalExecutor
from modelyard.records import Plan, Resources, Step
from modelyard.store import open_store

MODULE = '''
import os, time

def make(folder: str, mine: str) -> str:
    open(os.path.join(folder, mine), "w").close()
    return mine

def need(folder: str, other: str) -> str:
    """Hold the runner up until the other step has run beside it."""
    deadline = time.monotonic() + 30
    while not os.path.exists(os.path.join(folder, other)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{other} never ran")
        time.sleep(0.005)
    return other
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "steps_of_ready.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("steps_of_ready", None)


def step(project: Path, function: str, name: str, *, after: tuple[str, ...] = (), own: bool = False) -> Step:
    given = {"mine" if function == "make" else "other": name.removeprefix("needs-"), "folder": str(project)}
    return Step(
        name=name,
        verb=f"steps_of_ready:{function}",
        params=given,
        after=after,
        resources=Resources(own_process=own),
    )


def test_what_runs_beside_the_runner_starts_before_what_holds_it_up(project: Path) -> None:
    steps = (step(project, "need", "needs-a"), step(project, "make", "a", own=True))
    finished = run(Plan(project="p", steps=steps), open_store(project))
    assert finished["needs-a"] == "a"


class Patient(LocalExecutor):
    """Where the runner only looks whether something has ended, wait for it: the test must not depend on luck."""

    def wait(self, seconds: float | None = None) -> list[tuple[Task, Outcome]]:
        return super().wait(30.0 if seconds == 0.0 else seconds)


def test_what_ended_beside_a_busy_runner_frees_the_next_step_before_the_runner_is_idle(project: Path) -> None:
    steps = (
        step(project, "make", "a", own=True),
        step(project, "make", "b", own=True, after=("a",)),
        step(project, "need", "needs-a"),
        # `b` can only run if `a` was taken in after the step above, although this one is ready too.
        step(project, "need", "needs-b"),
    )
    store = open_store(project)
    executor = Patient(store)
    finished = run(Plan(project="p", steps=steps), store, executor=executor)
    assert finished["needs-b"] == "b"
    executor.close()


def test_many_steps_without_room_keep_no_short_step_waiting(project: Path) -> None:
    """More tasks wait for a process than are looked at, and one of them waits for a short step behind them all."""
    own = [step(project, "need", f"needs-{i}", own=True) for i in range(100)]
    made = [step(project, "make", str(i)) for i in range(100)]
    finished = run(Plan(project="p", steps=(*own, *made)), open_store(project))
    assert all(one.status == "succeeded" for one in finished.steps)
