"""The daemon runs what is queued, each fire once, through kill -9 and restarts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.automation.daemons import STEPS, alive, left, project, runs, until, up, want

from modelyard.automation.state import daemons, published
from modelyard.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    project(tmp_path)
    with LocalStore(tmp_path) as opened:
        yield opened


def test_it_runs_what_waits_and_what_comes_and_stops_politely(store: LocalStore) -> None:
    want(store, "before")
    with up(cwd=store.root) as daemon:
        daemon.wait_for("run")
        want(store, "later")
        daemon.wait_for("run")
        assert daemon.stop() == 0
    assert left(store.root) == ["one before", "two before", "one later", "two later"]
    assert [(r.status, r.actor) for r in runs(store)] == [("succeeded", "user:ann")] * 2
    assert [f.state for f in store.ledger.fires()] == ["succeeded"] * 2
    assert daemons(store, time.time()) == []
    assert [e.kind for e in store.ledger.events(kinds=("daemon.started", "daemon.stopped"))] == [
        "daemon.started",
        "daemon.stopped",
    ]


def test_what_is_killed_goes_on_at_the_next_start_and_nothing_finished_runs_twice(store: LocalStore) -> None:
    fire = want(store, "slow")
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        until(lambda: "two slow" in left(store.root))
        runner = until(lambda: published(store.root)).children[0].pid
        daemon.kill()
    until(lambda: not alive(runner))
    (seen,) = daemons(store, time.time())
    assert seen.status == "lost"
    # The second step is quick now; the first one must not be done again.
    project(store.root, steps=STEPS.replace("sleep(60)", "sleep(0)"))
    with up(cwd=store.root) as daemon:
        daemon.wait_for("run", "was cut off")
        daemon.wait_for("run", "succeeded")
        assert daemon.stop() == 0
    assert [(r.status, r.fire) for r in runs(store)] == [("interrupted", fire.id), ("succeeded", fire.id)]
    assert store.ledger.verify() == []


def test_a_second_one_is_told_who_is_there(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        daemon.wait_for("ready")
        second = subprocess.run(
            [sys.executable, "-m", "modelyard", "up"], cwd=store.root, capture_output=True, text=True, check=False
        )
        assert second.returncode == 4
        assert f"error[daemon-running]: `modelyard up` runs here already: process {daemon.process.pid}" in second.stderr
        assert daemon.stop() == 0


def test_a_changed_step_is_run_as_it_is_now(store: LocalStore) -> None:
    with up(cwd=store.root) as daemon:
        want(store, "a")
        daemon.wait_for("run")
        project(store.root, steps=STEPS.replace('x + "!"', 'x + "?"'))
        want(store, "b")
        daemon.wait_for("run")
        assert daemon.stop() == 0
    results = [store.ledger.run(r.id) for r in runs(store)]
    assert [r["two"] for r in results if r] == ["a!", "b?"]
