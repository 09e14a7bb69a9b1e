"""What every ledger must do with fires, as tests: each key once, each run once, whoever comes."""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest

from modelyard._kit.errors import Taken
from modelyard.conformance.opened import PATIENCE, OpenStore, in_process
from modelyard.records import Draft, Fire
from modelyard.store.base import Store

__all__ = ["FiresSuite", "fire_dropped", "fire_queued"]


def fire_queued(name: str, *, trigger: str = "arrivals", due: float = 5.0, seen: dict[str, str] | None = None) -> Draft:
    """Return a fire `fire-NAME` (of another trigger `fire-TRIGGER-NAME`) with the key `TRIGGER/NAME`."""
    body: dict[str, Any] = {
        "id": f"fire-{name}" if trigger == "arrivals" else f"fire-{trigger}-{name}",
        "key": f"{trigger}/{name}",
        "trigger": trigger,
        "kind": "files",
        "due": due,
        "not_before": 0.0,
        "trace": "0" * 32,
        "items": [{"name": name, "change": "created", "version": "1"}],
        "seen": seen or {},
        "payload": {"n": 1},
    }
    return Draft(kind="fire.queued", actor=f"trigger:{trigger}", payload=body)


def fire_dropped(name: str, why: str, *, queued: bool = False) -> Draft:
    """Return a fire that is left out, or taken out of the queue."""
    body = fire_queued(name).payload
    return Draft(kind="fire.dropped", actor="user:ann", payload={**body, "why": why, "queued": queued})


def _start(run: str, fire: str) -> Draft:
    return Draft(kind="run.started", run=run, payload={"project": "p", "fire": fire})


def _end(run: str, status: str, reason: str = "") -> Draft:
    return Draft(kind="run.finished", run=run, payload={"status": status, "reason": reason, "result": ""})


def _race(opener: Callable[[], Store], who: str, count: int, pipe: Connection) -> None:
    """Write the same fires as the other does, and run whichever are queued."""
    store = opener()
    pipe.send("ready")
    pipe.recv()
    wrote = started = 0
    for number in range(count):
        try:
            # The key is the same for both, the id is not.
            draft = fire_queued(str(number))
            store.ledger.append(Draft(kind=draft.kind, payload={**draft.payload, "id": f"fire-{number}-{who}"}))
            wrote += 1
        except Taken:
            continue
    for fire in store.ledger.fires():
        try:
            store.ledger.append(_start(f"run-{who}-{fire.id}", fire.id))
            started += 1
        except Taken:
            continue
    pipe.send((wrote, started))
    store.close()


class FiresSuite(OpenStore):
    """The tests of `ledger.fires`, `ledger.fire` and `ledger.seen`."""

    def test_a_fire_is_read_as_it_was_written(self, store: Store) -> None:
        (event,) = store.ledger.append(fire_queued("a", due=7.5), durable=True)
        fire = store.ledger.fire("fire-a")
        assert isinstance(fire, Fire)
        assert (fire.key, fire.trigger, fire.kind, fire.due) == ("arrivals/a", "arrivals", "files", 7.5)
        assert (fire.state, fire.run, fire.why, fire.queued) == ("queued", "", "", event.time)
        assert (fire.items[0].name, fire.payload, fire.actor) == ("a", {"n": 1}, "trigger:arrivals")
        assert store.ledger.fire("fire-b") is None
        assert store.ledger.fires() == [fire]

    def test_a_key_is_taken_once(self, store: Store) -> None:
        store.ledger.append(fire_queued("a"))
        before = store.ledger.head()
        for second in (fire_queued("a"), fire_dropped("a", "late")):
            with pytest.raises(Taken) as caught:
                store.ledger.append(Draft(kind="watch.finished"), second)
            assert caught.value.code == "fire-taken"
        assert store.ledger.head() == before
        assert [f.state for f in store.ledger.fires()] == ["queued"]

    def test_fires_are_listed_as_asked(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            store.ledger.append(fire_queued(name))
        store.ledger.append(fire_queued("a", trigger="nightly"), fire_dropped("d", "paused"))

        def keys(**asked: Any) -> list[str]:
            return [f.key for f in store.ledger.fires(**asked)]

        assert keys() == ["arrivals/a", "arrivals/b", "arrivals/c", "nightly/a", "arrivals/d"]
        assert keys(trigger="nightly") == ["nightly/a"]
        assert keys(states=("dropped",)) == ["arrivals/d"]
        assert keys(states=("queued", "dropped"), newest=True, limit=2) == ["arrivals/d", "nightly/a"]
        assert keys(trigger="arrivals", states=("queued",), limit=2) == ["arrivals/a", "arrivals/b"]
        assert keys(states=("failed",)) == []

    def test_what_was_seen_is_the_newest_of_each_item(self, store: Store) -> None:
        baseline = {"trigger": "arrivals", "seen": {"old.csv": "1", "gone.csv": "1"}}
        store.ledger.append(Draft(kind="trigger.seen", payload=baseline))
        assert store.ledger.seen("arrivals") == {"old.csv": "1", "gone.csv": "1"}
        store.ledger.append(fire_queued("x", seen={"old.csv": "2", "new.csv": "1", "gone.csv": ""}))
        assert store.ledger.seen("arrivals") == {"old.csv": "2", "new.csv": "1"}
        assert store.ledger.seen("nightly") == {}

    def test_what_a_taken_fire_saw_is_not_seen(self, store: Store) -> None:
        store.ledger.append(fire_queued("x", seen={"a.csv": "1"}))
        with pytest.raises(Taken):
            store.ledger.append(fire_queued("x", seen={"a.csv": "2"}))
        assert store.ledger.seen("arrivals") == {"a.csv": "1"}

    def test_a_fire_is_started_once_and_again_only_after_its_run_was_cut_off(self, store: Store) -> None:
        store.ledger.append(fire_queued("a"))
        store.ledger.append(_start("run-1", "fire-a"))
        with pytest.raises(Taken):
            store.ledger.append(_start("run-2", "fire-a"))
        assert store.ledger.run("run-2") is None
        store.ledger.append(_end("run-1", "interrupted", "its process died"))
        fire = store.ledger.fire("fire-a")
        assert fire is not None
        assert (fire.state, fire.run, fire.why) == ("queued", "run-1", "its process died")
        store.ledger.append(_start("run-3", "fire-a"), _end("run-3", "succeeded"))
        with pytest.raises(Taken):
            store.ledger.append(_start("run-4", "fire-a"))
        fire = store.ledger.fire("fire-a")
        assert fire is not None
        assert (fire.state, fire.run) == ("succeeded", "run-3")

    def test_a_fire_can_be_taken_out_of_the_queue_while_it_waits(self, store: Store) -> None:
        store.ledger.append(fire_queued("a"), fire_queued("b"))
        store.ledger.append(fire_dropped("a", "not wanted", queued=True))
        fire = store.ledger.fire("fire-a")
        assert fire is not None
        assert (fire.state, fire.why) == ("dropped", "not wanted")
        store.ledger.append(_start("run-1", "fire-b"))
        for name in ("a", "b", "c"):
            with pytest.raises(Taken):
                store.ledger.append(fire_dropped(name, "too late", queued=True))

    def test_nothing_joins_a_fire_whose_run_has_begun(self, store: Store) -> None:
        def joining(name: str) -> Draft:
            draft = fire_dropped(name, "joined fire fire-a")
            return Draft(kind=draft.kind, payload={**draft.payload, "joined": "fire-a"})

        store.ledger.append(fire_queued("a"))
        store.ledger.append(joining("b"))
        store.ledger.append(_start("run-1", "fire-a"))
        for after in ([], [_end("run-1", "interrupted")]):
            store.ledger.append(*after)
            with pytest.raises(Taken):
                store.ledger.append(joining("c"))
        assert [(f.key, f.joined) for f in store.ledger.fires()] == [("arrivals/a", ""), ("arrivals/b", "fire-a")]

    def test_what_joined_a_fire_is_told(self, store: Store) -> None:
        def joining(name: str, fire: str) -> Draft:
            draft = fire_dropped(name, f"joined fire {fire}")
            return Draft(kind=draft.kind, payload={**draft.payload, "joined": fire})

        store.ledger.append(fire_queued("a"), fire_queued("b"), fire_queued("a", trigger="nightly"))
        store.ledger.append(joining("c", "fire-a"), joining("d", "fire-b"), fire_dropped("e", "paused"))
        store.ledger.append(joining("f", "fire-a"))

        def joined() -> dict[str, list[str]]:
            return {name: [f.id for f in store.ledger.joined(f"fire-{name}")] for name in ("a", "b", "c", "z")}

        told = {"a": ["fire-c", "fire-f"], "b": ["fire-d"], "c": [], "z": []}
        assert joined() == told
        store.ledger.append(_start("run-1", "fire-a"))
        assert joined() == told
        store.ledger.append(_end("run-1", "interrupted"), _start("run-2", "fire-a"))
        assert joined() == told

    def test_rebuilt_fires_equal_the_live_ones(self, store: Store) -> None:
        store.ledger.append(fire_queued("a", seen={"a": "1"}), fire_queued("b"), fire_dropped("c", "paused"))
        store.ledger.append(_start("run-1", "fire-a"), _end("run-1", "failed", "said \0 why"))
        assert store.ledger.verify() == []
        before = store.ledger.fires(), store.ledger.seen("arrivals")
        store.ledger.rebuild()
        assert (store.ledger.fires(), store.ledger.seen("arrivals")) == before
        assert store.ledger.verify() == []

    def test_processes_that_see_the_same_write_and_run_it_once(self, store: Store, opener: Callable[[], Store]) -> None:
        count = 100
        with (
            in_process(_race, opener, "one", count) as (_, one),
            in_process(_race, opener, "two", count) as (_, two),
        ):
            one.send("go")
            two.send("go")
            told = []
            for pipe in (one, two):
                assert pipe.poll(PATIENCE)
                told.append(pipe.recv())
        fires = store.ledger.fires()
        assert [f.key for f in fires] == sorted({f.key for f in fires}, key=lambda key: int(key.rpartition("/")[2]))
        assert len(fires) == count == sum(wrote for wrote, _ in told)
        # The first to come to the end may not have seen the last ones of the other.
        started = [f for f in fires if f.state == "started"]
        assert len(started) == sum(starts for _, starts in told)
        assert len({f.run for f in started}) == len(started)
        assert store.ledger.verify() == []
