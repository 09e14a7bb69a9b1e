"""What is next, a view of the queue that follows whoever writes to it, and talk that stops nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.automation.daemons import want

from modelyard.automation.notes import Aside, Note, note
from modelyard.automation.queue import Queue, choose
from modelyard.records import Draft, Fire
from modelyard.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(tmp_path, clock=lambda: 0.0) as opened:
        yield opened


def start(store: LocalStore, fire: Fire, run: str) -> None:
    store.ledger.append(Draft(kind="run.started", run=run, payload={"project": "p", "fire": fire.id}))


def end(store: LocalStore, run: str, status: str) -> None:
    store.ledger.append(Draft(kind="run.finished", run=run, payload={"status": status, "reason": ""}))


def names(queue: Queue, now: float = 0.0) -> list[str]:
    queue.refresh()
    return [str(fire.payload) for fire in queue.ready(now)]


def test_the_view_follows_every_change(store: LocalStore, tmp_path: Path) -> None:
    first = want(store, "a")
    queue = Queue(store)
    with LocalStore(tmp_path, clock=lambda: 0.0) as other:
        second = want(other, "b")
        want(other, "c", not_before=50.0)
    assert names(queue) == ["a", "b"]
    assert names(queue, 50.0) == ["a", "b", "c"]
    assert queue.opens(0.0) == 50.0
    start(store, first, "run-1")
    assert names(queue) == ["b"]
    assert queue.running == {"run-1": first.id}
    end(store, "run-1", "interrupted")
    assert sorted(names(queue)) == ["a", "b"]
    start(store, first, "run-2")
    end(store, "run-2", "succeeded")
    gone = {"id": second.id, "key": second.key, "trigger": "manual", "kind": "manual", "due": 0.0, "why": "x"}
    store.ledger.append(Draft(kind="fire.dropped", payload={**gone, "queued": True}))
    assert names(queue) == []
    assert (queue.running, len(queue)) == ({}, 1)
    assert not queue.refresh()
    # Whoever begins later sees the same.
    assert [f.payload for f in Queue(store).ready(50.0)] == ["c"]


def test_triggers_take_turns_and_what_was_cut_off_goes_on_first(store: LocalStore) -> None:
    for number in range(3):
        want(store, f"file-{number}", trigger="arrivals")
    want(store, "daily", trigger="schedule")
    served: dict[str, int] = {}
    order = []
    left = Queue(store).ready(0.0)
    while (fire := choose(left, served)) is not None:
        order.append(fire.payload)
        served[fire.trigger] = len(order)
        left.remove(fire)
    assert order == ["file-0", "daily", "file-1", "file-2"]
    cut = Queue(store).ready(0.0)[2]
    start(store, cut, "run-1")
    end(store, "run-1", "interrupted")
    chosen = choose(Queue(store).ready(0.0), served)
    assert chosen is not None
    assert chosen.id == cut.id


def test_a_thousand_that_wait_are_read_once(store: LocalStore) -> None:
    for number in range(200):
        want(store, str(number))
    queue = Queue(store)
    asked: list[str] = []
    fires = store.ledger.fires
    store.ledger.fires = lambda **given: asked.append(str(given)) or fires(**given)  # type: ignore[method-assign,assignment,func-returns-value]
    for fire in list(queue.ready(0.0)):
        start(store, fire, f"run-{fire.id}")
        end(store, f"run-{fire.id}", "succeeded")
        queue.refresh()
    assert len(queue) == 0
    assert asked == []


def test_a_reader_that_stalls_stops_nobody_and_is_told_what_it_missed() -> None:
    held, said = threading.Event(), []

    def slow(one: Note) -> None:
        assert held.wait(60)
        said.append(one.text)

    aside = Aside(slow, most=3)
    for number in range(10):
        aside(note("run", str(number)))
    held.set()
    aside.end()
    assert said[-3:] == ["7", "8", "9"]
    assert any("lines were left out" in text for text in said)


def test_a_reader_that_has_gone_is_not_spoken_to_any_more() -> None:
    calls = []

    def gone(one: Note) -> None:
        calls.append(one)
        raise BrokenPipeError

    aside = Aside(gone)
    aside(note("run", "1"))
    aside.end()
    aside(note("run", "2"))
    assert len(calls) == 1
