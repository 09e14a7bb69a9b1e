"""A run is ended from outside, and what a dead process left is settled before anything new begins."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard._kit.errors import NotFound, UserError
from modelyard.pipeline.cancel import CutOff, cancel, ending
from modelyard.pipeline.dead import fail_fire, settle_dead
from modelyard.records import Draft
from modelyard.store import LocalStore

SLOW = """\
import sys, time
import modelyard

def wait(x):
    open(sys.argv[1] + "/begun", "w").close()
    time.sleep(60)

def first(x):
    return x

flow = modelyard.Flow("slow")
one = flow.step(first, x=1)
flow.step(wait, x=one)
modelyard.run(flow, project=sys.argv[1])
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(tmp_path) as opened:
        yield opened


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    try:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None, "the run ended before its second step began"
            assert time.monotonic() < deadline, "the second step never began"
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait(60)


def queue(store: LocalStore, fire: str = "fire-1") -> None:
    body = {"id": fire, "key": f"t/{fire}", "trigger": "t", "kind": "manual", "due": 1.0}
    store.ledger.append(Draft(kind="fire.queued", actor="user:ann", payload=body))


def test_a_run_of_another_process_is_cancelled_and_says_by_whom(
    store: LocalStore, slow: subprocess.Popen[bytes]
) -> None:
    ended = cancel(store, actor="user:ann")
    assert (ended.status, ended.reason) == ("cancelled", "cancelled by user:ann")
    assert [(s.name, s.status) for s in ended.steps] == [("first", "succeeded"), ("wait", "interrupted")]
    slow.wait(60)
    assert store.holder("run") is None
    # Asked again, it says how it ended and does no harm.
    assert cancel(store, actor="user:bob", run=ended.id).reason == "cancelled by user:ann"


def test_there_must_be_something_to_cancel(store: LocalStore) -> None:
    with pytest.raises(NotFound) as said:
        cancel(store, actor="user:ann")
    assert said.value.code == "run-not-under-way"
    with pytest.raises(NotFound) as said:
        cancel(store, actor="user:ann", run="run-nobody")
    assert said.value.code == "run-not-found"


def test_how_a_stopped_run_ends(store: LocalStore) -> None:
    assert ending(KeyboardInterrupt(), "run-1", store) == ("cancelled", "stopped by Ctrl-C")
    assert ending(KeyboardInterrupt("SIGTERM"), "run-1", store) == ("cancelled", "stopped by SIGTERM")
    assert ending(CutOff("the daemon was stopped"), "run-1", store) == ("interrupted", "the daemon was stopped")
    with store.hold("cancel:run-1", who={"actor": "user:ann"}):
        assert ending(KeyboardInterrupt(), "run-1", store) == ("cancelled", "cancelled by user:ann")


def test_the_fire_of_a_dead_run_is_queued_again_before_any_new_run(store: LocalStore) -> None:
    queue(store)
    store.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p", "fire": "fire-1"}))
    assert [f.state for f in store.ledger.fires()] == ["started"]
    assert settle_dead(store) == ["run-1"]
    assert [f.state for f in store.ledger.fires()] == ["queued"]
    assert settle_dead(store) == []
    assert store.ledger.verify() == []


def test_the_run_of_a_living_process_is_left_alone(store: LocalStore, tmp_path: Path) -> None:
    queue(store)
    store.ledger.append(Draft(kind="run.started", run="run-1", payload={"project": "p", "fire": "fire-1"}))
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with LocalStore(tmp_path) as theirs, theirs.hold("run", who={"run": "run-1"}):
            inside.set()
            done.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(60), "the other store never had the run"
    assert settle_dead(store) == []
    done.set()
    thread.join(60)
    assert not thread.is_alive()
    assert settle_dead(store) == ["run-1"]


def test_a_fire_that_cannot_run_ends_as_a_failed_run_once(store: LocalStore) -> None:
    queue(store)
    (fire,) = store.ledger.fires()
    error = UserError("plan-cycle", "steps wait for each other", where="modelyard.yaml:3")
    assert fail_fire(fire, "p", error, store, actor=fire.actor)
    assert not fail_fire(fire, "p", error, store, actor=fire.actor)
    (run,) = store.ledger.runs()
    assert (run.status, run.reason, run.fire) == ("failed", "modelyard.yaml:3: steps wait for each other", "fire-1")
    assert [f.state for f in store.ledger.fires()] == ["failed"]
