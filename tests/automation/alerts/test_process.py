"""The sender as a process: started by a run, killed, waited for by another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.automation import alerts
from modelyard.spec import Spec
from modelyard.store import open_store

Make = Callable[..., Spec]

STEPS = """
def load() -> int:
    return 1


def fit() -> int:
    raise RuntimeError("no luck")
"""


def until(done: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so; the time is only what a stuck test may last."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    assert done()


@pytest.fixture
def senders() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start sender processes that end with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(project: Path, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "modelyard.automation.alerts", str(project), *more]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(60)


def holder(spec: Spec) -> int:
    with open_store(spec.root) as store:
        return int((store.holder("alerts") or {}).get("pid", 0))


def test_a_run_starts_a_sender_that_outlives_it_and_ends_by_itself(
    project: Make, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "IDLE", 0.0)
    spec = project(f"alerts: [{{to: '{web.address}', on: [start, stage, success, failure]}}]", steps=STEPS)
    with pytest.raises(modelyard.ModelyardError, match="no luck"):
        modelyard.run(spec.path)
    # The run is over and has waited for nobody.
    until(lambda: any("run failed" in body["title"] for body in web.bodies()))
    titles = [body["title"] for body in web.bodies()]
    assert titles[0].startswith("income: run started by ")
    assert titles[-1] == "income: run failed at fit: step `fit` raised RuntimeError: no luck"
    until(lambda: holder(spec) == 0)
    with open_store(spec.root) as store:
        assert {alert.state for alert in store.ledger.alerts()} == {"sent"}
        assert len(web.requests) == len(store.ledger.alerts())


def test_a_project_without_alerts_starts_nothing(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_start", lambda command: pytest.fail("it started a process"))
    modelyard.run(project("").path)


def test_what_keeps_a_sender_from_starting_fails_no_run(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str]) -> None:
        raise OSError(11, "no more processes")

    monkeypatch.setattr(alerts, "_start", refuse)
    monkeypatch.delenv("ML_HOOK", raising=False)
    spec = project("alerts: ['env:ML_HOOK']")
    assert modelyard.run(spec.path).status == "succeeded"
    with open_store(spec.root) as store:
        assert "no more processes" in alerts.nudge(spec, store)[0]


def test_a_variable_that_is_missing_is_said_before_the_run(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_start", lambda command: None)
    monkeypatch.delenv("ML_HOOK", raising=False)
    spec = project("alerts: ['env:ML_HOOK', 'file:hook.txt', {to: 'mailto:a@b.org', name: fine}]")
    with open_store(spec.root) as store:
        assert alerts.nudge(spec, store) == [
            "note: alerts for `ml-hook` wait: the variable ML_HOOK is not set",
            "note: alerts for `hook.txt` wait: the file with its address is not there",
        ]


def test_a_sender_that_is_killed_while_it_hands_over_sends_it_again_under_the_same_id(
    project: Make, senders: Any, web: Any
) -> None:
    spec = project(f"alerts: [{{to: '{web.address}', on: start}}]")
    web.held.clear()
    first = senders(spec.root)
    until(lambda: holder(spec))
    modelyard.run(spec.path)
    # The message has arrived, and the server has not said so yet.
    until(lambda: len(web.requests) == 1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(60)
    web.held.set()
    senders(spec.root)
    until(lambda: len(web.requests) == 2)
    assert len({headers["Idempotency-Key"] for headers, _ in web.requests}) == 1
    with open_store(spec.root) as store:
        until(lambda: [alert.state for alert in store.ledger.alerts()] == ["sent"])
        assert len(list(store.ledger.events(kinds=("alert.sent",)))) == 1


@pytest.mark.slow
def test_another_sender_waits_and_takes_over(project: Make, senders: Any, web: Any) -> None:
    spec = project(f"alerts: [{{to: '{web.address}', on: start}}]")
    first = senders(spec.root)
    until(lambda: holder(spec) == first.pid)
    second = senders(spec.root)
    # One that was started by a run has nothing to do here.
    assert senders(spec.root, "--idle", "60").wait(60) == 0
    modelyard.run(spec.path)
    until(lambda: len(web.requests) == 1)
    first.kill()
    first.wait(60)
    until(lambda: holder(spec) == second.pid)
    modelyard.run(spec.path)
    until(lambda: len(web.requests) == 2)
    second.terminate()
    assert second.wait(60) == 0


def test_a_project_that_is_not_there_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelyard.automation.alerts", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "spec-not-found" in done.stderr or "there is no" in done.stderr
