"""Processes that do not do as they are told: the one that keeps them says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from modelyard.serving.limits import Limits
from modelyard.serving.server import _patience
from modelyard.serving.supervisor import Supervisor

from .versions import until  # noqa: TID252 - the suite is not installed, so there is no absolute name

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def end(told: Sequence[str]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_process_that_has_to_be_killed_shows_in_the_exit_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What it had answered may not be logged, which is what 0 would say."""

    def work(place: int, tell: Callable[[Sequence[str]], object]) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell(["income,digest,trace"])
        time.sleep(60)
        return 0

    assert Supervisor(work, [()], end, patience=0.1).run() == 1
    assert "is killed" in capfd.readouterr().err


def test_process_that_is_told_to_end_as_it_begins_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    fork = os.fork

    def told() -> int:
        pid = fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    monkeypatch.setattr(os, "fork", told)
    assert Supervisor(lambda place, tell: 7, [()], end, patience=10.0).run() == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("group", [False, True], ids=["first", "all"])
def test_told_to_end_before_all_answer(number: signal.Signals, group: bool) -> None:
    """A terminal sends Ctrl-C to all of them, whoever sees it first; others tell the first process alone."""
    parent = os.getpid()

    def work(place: int, tell: Callable[[str, str], object]) -> int:
        if place:
            if not group:
                os.kill(parent, number)
            elif number == signal.SIGINT:
                os.kill(os.getpid(), number)
        elif group:
            time.sleep(0.5)
            os.kill(parent, number)
        time.sleep(60)
        return 0

    assert Supervisor(work, [(), ()], end, patience=10.0).run() == 128 + number


def test_process_that_is_told_to_end_before_it_takes_a_place_again_is_no_failure(tmp_path: Path) -> None:
    parent, begun = os.getpid(), tmp_path / "begun"

    def work(place: int, tell: Callable[[Sequence[str]], object]) -> int:
        if begun.exists():
            os.kill(parent, signal.SIGTERM)
            time.sleep(60)
        begun.touch()
        tell(["income,digest,trace"])
        # Nothing is started again before all have answered once.
        until(lambda: said.exists())
        return 3

    said = tmp_path / "said"
    assert Supervisor(work, [()], lambda told: said.touch(), patience=60.0).run() == 0


def test_a_process_has_the_time_that_its_parts_may_take() -> None:
    """Connections have the time to drain, and so do the logs after them."""
    for seconds in (0.5, 20.0, 300.0):
        assert _patience(Limits(drain_seconds=seconds)) > 2 * seconds + 15
