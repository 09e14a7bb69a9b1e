"""A stop may come between any two lines: what was taken is given back, and what was begun can be ended."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import modelyard
from modelyard import Flow
from modelyard._kit.stopping import forget, tell
from modelyard.pipeline.leases import Demand, Leases
from modelyard.pipeline.machine import machine
from modelyard.records import Draft, Event
from modelyard.store import open_store


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, lambda number, frame: tell(KeyboardInterrupt))
    traced = sys.gettrace()
    yield
    sys.settrace(traced)
    signal.signal(signal.SIGTERM, before)
    forget()


def stopped_at(place: int, work: Callable[[], object]) -> KeyboardInterrupt | None:
    """Do some work that is told to stop at one place of it; return what came of it, none where it has fewer places."""
    seen = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal seen
        if "stopping" in frame.f_code.co_filename:
            return None
        seen += event in ("line", "return")
        if seen == place:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt as stop:
        # With its trace, as whoever ends a run holds it meanwhile.
        return stop
    finally:
        sys.settrace(None)
    return None


def test_a_lease_that_was_cut_off_keeps_nobody_waiting(tmp_path: Path) -> None:
    for place in count(1):
        leases = Leases(machine(), tmp_path)
        leases.ask(Demand(1))
        stop = stopped_at(place, lambda: leases.ask(Demand(1)))  # noqa: B023 - it is called at once
        ended = threading.Thread(target=leases.close, daemon=True)
        ended.start()
        ended.join(30)
        assert not ended.is_alive(), place
        if stop is None:
            break


def test_what_a_stop_has_broken_is_no_failure_of_the_run(tmp_path: Path) -> None:
    def one() -> int:
        return 1

    def broken(event: Event) -> None:
        ends.extend([event.payload["status"]] if event.kind == "run.finished" else [])
        if event.kind == "step.started":
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            # So does `threading.Condition.wait` where the signal comes between two lines of it.
            raise RuntimeError("release unlocked lock")

    ends: list[str] = []
    flow = Flow("f")
    flow.step(one)
    with pytest.raises(KeyboardInterrupt):
        modelyard.run(flow, project=tmp_path, observe=broken)
    assert ends == ["cancelled"]


def test_an_event_that_was_cut_off_lets_the_next_one_be_written(tmp_path: Path) -> None:
    draft = Draft(kind="note", actor="user:ann", payload={})
    with open_store(tmp_path) as store:
        for place in count(1):
            before = store.ledger.head()[0]
            stop = stopped_at(place, lambda: store.ledger.append(draft, durable=True))
            (event,) = store.ledger.append(draft, durable=True)
            # The one that was cut off is there as a whole, or not at all.
            assert event.seq - before in (1, 2), place
            if stop is None:
                break
        assert store.ledger.verify() == []
