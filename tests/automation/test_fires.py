"""A fire is written down once a key, whoever sees it, and run once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard._kit.errors import Taken
from modelyard.automation.base import Look, Wanted
from modelyard.automation.fires import ask, write
from modelyard.automation.queue import Queue
from modelyard.records import Draft, Item, TriggerKind
from modelyard.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore(tmp_path) as opened:
        yield opened


class Files:
    """A trigger that found what it was given."""

    name = "arrivals"
    kind: TriggerKind = "files"

    def start(self, wake: Callable[[], None]) -> None:
        """There is nothing to listen to."""

    def look(self, now: float) -> Look:
        return Look()

    def close(self) -> None:
        """There is nothing to end."""


def wanted(name: str, version: str = "1", *, not_before: float = 0.0) -> Wanted:
    item = Item(name=name, change="created", version=version)
    return Wanted(key=f"{name}@{version}", due=5.0, not_before=not_before, items=[item], seen={name: version})


def test_a_key_is_taken_once(store: LocalStore) -> None:
    look = Look(wanted=[wanted("a.csv"), wanted("b.csv")])
    assert [f.items[0].name for f in write(Files(), look, store)] == ["a.csv", "b.csv"]
    assert write(Files(), look, store) == []
    assert store.ledger.seen("arrivals") == {"a.csv": "1", "b.csv": "1"}
    assert store.ledger.verify() == []


def test_what_was_there_at_first_fires_nothing(store: LocalStore) -> None:
    assert write(Files(), Look(baseline={"old.csv": "1"}), store) == []
    assert store.ledger.seen("arrivals") == {"old.csv": "1"}
    assert store.ledger.fires() == []


def test_a_gone_item_is_no_longer_seen(store: LocalStore) -> None:
    write(Files(), Look(wanted=[wanted("a.csv")]), store)
    gone = Wanted(key="a.csv@gone", due=6.0, items=[Item(name="a.csv", change="deleted")], seen={"a.csv": ""})
    write(Files(), Look(wanted=[gone]), store)
    assert store.ledger.seen("arrivals") == {}


def test_what_may_not_start_yet_waits(tmp_path: Path) -> None:
    with LocalStore(tmp_path, clock=lambda: 5.0) as store:
        write(Files(), Look(wanted=[wanted("a.csv", not_before=100.0), wanted("b.csv")]), store)
        assert [f.items[0].name for f in Queue(store).ready(50.0)] == ["b.csv"]
        assert [f.items[0].name for f in Queue(store).ready(100.0)] == ["a.csv", "b.csv"]


def test_a_paused_trigger_drops_what_it_sees_and_says_so(store: LocalStore) -> None:
    store.ledger.append(Draft(kind="trigger.paused", payload={"trigger": "arrivals", "reason": "holiday"}))
    (fire,) = write(Files(), Look(wanted=[wanted("a.csv")]), store)
    assert (fire.state, fire.why) == ("dropped", "the trigger is paused")
    store.ledger.append(Draft(kind="trigger.resumed", payload={"trigger": "arrivals", "reason": ""}))
    (fire,) = write(Files(), Look(wanted=[wanted("a.csv", "2")]), store)
    assert fire.state == "queued"


def test_a_fire_is_started_once_and_again_only_after_its_run_was_cut_off(store: LocalStore) -> None:
    fire = ask("by-hand", "manual", wanted("x"), store, actor="user:ann")
    assert fire is not None

    def start(run: str) -> None:
        store.ledger.append(Draft(kind="run.started", run=run, payload={"project": "p", "fire": fire.id}))

    def end(run: str, status: str) -> None:
        store.ledger.append(Draft(kind="run.finished", run=run, payload={"status": status, "reason": "why"}))

    start("run-1")
    with pytest.raises(Taken):
        start("run-2")
    assert store.ledger.run("run-2") is None
    end("run-1", "interrupted")
    assert [f.id for f in Queue(store).ready(9.0)] == [fire.id]
    start("run-3")
    end("run-3", "succeeded")
    with pytest.raises(Taken):
        start("run-4")
    done = store.ledger.fire(fire.id)
    assert done is not None
    assert (done.state, done.run) == ("succeeded", "run-3")
    assert store.ledger.verify() == []
    before = store.ledger.fires()
    store.ledger.rebuild()
    assert store.ledger.fires() == before


def test_what_a_pause_dropped_is_named_and_after_it_the_board_says_that_it_goes_on(store: LocalStore) -> None:
    from modelyard.automation.board import pause, remembered, resume

    pause("arrivals", store, reason="moving house", actor="user:ann")
    pause("arrivals", store, reason="", actor="user:bob")
    (fire,) = write(Files(), Look(wanted=[wanted("a.csv")]), store)
    assert [item.name for item in fire.items] == ["a.csv"]
    (row,) = remembered(store)
    assert (row.name, row.kind, row.paused) == ("arrivals", "files", "moving house (user:ann)")
    assert row.why == "left out: the trigger is paused"
    resume("arrivals", store, reason="", actor="user:ann")
    (row,) = remembered(store)
    assert row.paused == ""
    assert "goes on" in row.why
