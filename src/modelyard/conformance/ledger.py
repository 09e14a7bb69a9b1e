"""What every ledger must do, as tests; `modelyard.conformance.store` says how to use them."""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import pytest

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import NotFound
from modelyard.conformance.opened import PATIENCE, OpenStore, in_process
from modelyard.records import Draft, Event, fold_run
from modelyard.store.base import Store

__all__ = ["LedgerSuite", "alias_moved", "finished", "run_finished", "run_started"]


def run_started(run: str, project: str = "p") -> Draft:
    """Return the start of a run."""
    return Draft(kind="run.started", run=run, actor="user:ann", payload={"project": project, "plan": "0" * 64})


def run_finished(run: str, status: str = "succeeded") -> Draft:
    """Return the end of a run."""
    return Draft(kind="run.finished", run=run, payload={"status": status, "reason": "", "result": "r"})


def finished(run: str, step: str, key: str, value: Any = 1, *, kind: str = "step.finished") -> Draft:
    """Return the end of a step (or its finding in the cache, with `kind`)."""
    payload = {"key": key, "outputs": {"value": value}, "seconds": 0.5, "cpu_seconds": 0.25, "attempt": 1}
    return msgspec.convert({"kind": kind, "run": run, "step": step, "payload": payload}, Draft)


def alias_moved(endpoint: str, revision: int, alias: str = "champion") -> Draft:
    """Return the move of an alias to a model."""
    problem = {"kind": "problem", "task": "binary", "target": "y"}
    model = {
        "kind": "model",
        "name": endpoint,
        "digest": digest_bytes(str(revision).encode()),
        "family": "logistic",
        "params": {},
        "format": "onnx",
        "signature": {"features": [], "problem": problem},
        "trained_on": [],
        "environment": "e",
    }
    to = {"kind": "deployment", "endpoint": endpoint, "alias": alias, "model": model, "revision": revision}
    return Draft(kind="alias.moved", payload={"deployment": to})


def _append_many(opener: Callable[[], Store], who: str, count: int, pipe: Connection) -> None:
    store = opener()
    pipe.send("ready")
    pipe.recv()
    for number in range(count):
        # Two events an append: they must stand side by side in the end.
        store.ledger.append(
            Draft(kind="step.started", run=who, step=str(number)), finished(who, str(number), f"{who}-{number}")
        )
    store.close()


class LedgerSuite(OpenStore):
    """The tests of `store.ledger`."""

    def test_an_empty_ledger_has_nothing_and_holds(self, store: Store) -> None:
        ledger = store.ledger
        assert ledger.head() == (0, "")
        assert list(ledger.events()) == []
        assert ledger.append() == []
        assert ledger.runs() == []
        assert ledger.aliases() == []
        assert ledger.run("run-1") is None
        assert ledger.output("k") is None
        assert ledger.latest("s") is None
        assert ledger.alias("e", "champion") is None
        assert ledger.verify() == []

    def test_events_come_back_as_they_were_written(self, store: Store) -> None:
        drafts = [
            run_started("run-1"),
            Draft(kind="token.added", actor="user:zoë", payload={"b": [1, 2.5, None, True, "ü\n\x00"], "a": {"y": {}}}),
            Draft(kind="watch.finished"),
        ]
        written = store.ledger.append(*drafts)
        assert [e.seq for e in written] == [1, 2, 3]
        assert list(store.ledger.events()) == written
        for draft, event in zip(drafts, written, strict=True):
            assert all(getattr(event, name) == getattr(draft, name) for name in Draft.__struct_fields__)
        assert store.ledger.head() == (3, written[-1].hash)

    def test_each_hash_is_its_own(self, store: Store) -> None:
        events = [store.ledger.append(Draft(kind="watch.finished"), durable=bool(n % 2))[0] for n in range(4)]
        assert len({e.hash for e in events}) == 4
        assert all(len(e.hash) == 64 for e in events)

    def test_the_hash_can_be_recomputed_by_anybody(self, store: Store) -> None:
        """Canonical JSON: sorted keys, no spaces, the number that Python and JSON write for a double."""
        store.ledger.append(
            run_started("run-1"),
            Draft(kind="token.added", actor="user:zoë", payload={"b": [1, 2.5, None, "ü\n\x00 \u2028"], "a": {}}),
        )
        store.ledger.append(finished("run-1", "a", "k"))
        last = ""
        for e in store.ledger.events():
            fields = [last, e.seq, e.time, e.run, e.step, e.kind, e.actor, e.payload]
            text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            last = hashlib.sha256(text.encode()).hexdigest()
            assert e.hash == last
        assert store.ledger.head() == (3, last)

    def test_events_are_filtered_and_limited(self, store: Store) -> None:
        for run in ("run-1", "run-2"):
            store.ledger.append(run_started(run), finished(run, "s", f"k-{run}"), run_finished(run))
        got = store.ledger.events

        def seqs(events: Iterator[Event]) -> list[int]:
            return [e.seq for e in events]

        assert seqs(got(after=4)) == [5, 6]
        assert seqs(got(run="run-2")) == [4, 5, 6]
        assert seqs(got(kinds=("run.started", "run.finished"))) == [1, 3, 4, 6]
        assert seqs(got(limit=2)) == [1, 2]
        assert seqs(got(after=1, run="run-1", kinds=("run.finished",), limit=5)) == [3]
        assert seqs(got(run="run-3")) == []

    def test_many_events_are_all_read(self, store: Store) -> None:
        store.ledger.append(*(Draft(kind="watch.finished", step=str(n)) for n in range(2500)))
        assert [e.step for e in store.ledger.events()] == [str(n) for n in range(2500)]
        assert [e.seq for e in store.ledger.events(limit=2001)] == list(range(1, 2002))

    def test_one_may_append_while_reading(self, store: Store) -> None:
        store.ledger.append(*(Draft(kind="watch.finished") for _ in range(5)))
        events = store.ledger.events()
        next(events)
        store.ledger.append(Draft(kind="watch.finished"))
        assert store.ledger.head()[0] == 6
        assert len(list(events)) >= 4

    def test_events_are_written_together_or_not_at_all(self, store: Store) -> None:
        store.ledger.append(run_started("run-1"))
        before = store.ledger.head()
        with pytest.raises((KeyError, TypeError)):
            store.ledger.append(finished("run-1", "a", "ka"), Draft(kind="step.finished", run="run-1", step="b"))
        with pytest.raises(TypeError):
            store.ledger.append(finished("run-1", "a", "ka"), Draft(kind="watch.finished", payload={"x": object()}))
        assert store.ledger.head() == before
        assert store.ledger.output("ka") is None
        store.ledger.append(finished("run-1", "a", "ka"))
        assert store.ledger.verify() == []

    def test_a_finished_step_is_found_by_its_key(self, store: Store) -> None:
        store.ledger.append(run_started("run-1"), finished("run-1", "load", "k1", {"n": 1}))
        found = store.ledger.output("k1")
        assert found is not None
        assert (found.name, found.status, found.key, found.outputs) == ("load", "succeeded", "k1", {"value": {"n": 1}})
        assert (found.seconds, found.cpu_seconds) == (0.5, 0.25)
        assert store.ledger.output("k2") is None

    def test_a_failed_or_begun_step_is_no_output(self, store: Store) -> None:
        body = {"key": "k1", "error": {"code": "x", "message": "m", "hint": "", "trace": ""}}
        store.ledger.append(
            run_started("run-1"),
            Draft(kind="step.started", run="run-1", step="load", payload={"key": "k1"}),
            Draft(kind="step.failed", run="run-1", step="load", payload=body),
        )
        assert store.ledger.output("k1") is None
        assert store.ledger.latest("load") is None

    def test_a_step_done_again_answers_with_its_newest_output(self, store: Store) -> None:
        store.ledger.append(finished("run-1", "load", "k1", 1), finished("run-2", "load", "k1", 2))
        found = store.ledger.output("k1")
        assert found is not None
        assert found.outputs == {"value": 2}

    def test_the_latest_of_a_name_is_the_one_used_last(self, store: Store) -> None:
        store.ledger.append(finished("run-1", "load", "k1", 1), finished("run-2", "load", "k2", 2))
        assert (latest := store.ledger.latest("load")) is not None
        assert latest.key == "k2"
        # Back to what run 1 did: its output was found in the ledger.
        store.ledger.append(finished("run-3", "load", "k1", 1, kind="step.cached"))
        assert (latest := store.ledger.latest("load")) is not None
        assert (latest.key, latest.status, latest.outputs) == ("k1", "succeeded", {"value": 1})

    def test_a_run_is_listed_as_it_is_folded(self, store: Store) -> None:
        store.ledger.append(run_started("run-1"), finished("run-1", "a", "k1"), durable=True)
        store.ledger.append(run_started("run-2"), finished("run-2", "a", "k1", kind="step.cached"))
        store.ledger.append(run_finished("run-1", "failed"), durable=True)
        listed = store.ledger.runs()
        assert [(r.id, r.status) for r in listed] == [("run-2", "running"), ("run-1", "failed")]
        for short in listed:
            whole = store.ledger.run(short.id)
            assert whole is not None
            assert msgspec.structs.replace(whole, steps=()) == short
            assert whole == fold_run(store.ledger.events(run=short.id))
            assert whole["a"] == 1

    def test_runs_come_page_by_page_newest_first(self, store: Store) -> None:
        for n in range(5):
            store.ledger.append(run_started(f"run-{n}"))
        assert [r.id for r in store.ledger.runs(limit=2)] == ["run-4", "run-3"]
        assert [r.id for r in store.ledger.runs(before="run-3", limit=2)] == ["run-2", "run-1"]
        assert [r.id for r in store.ledger.runs(before="run-0")] == []
        with pytest.raises(NotFound, match="run-9"):
            store.ledger.runs(before="run-9")

    def test_an_alias_points_where_it_was_moved_last(self, store: Store) -> None:
        store.ledger.append(alias_moved("income", 1), alias_moved("churn", 1))
        store.ledger.append(alias_moved("income", 1, "challenger"), alias_moved("income", 2))
        now = store.ledger.alias("income", "champion")
        assert now is not None
        assert (now.revision, now.model.name) == (2, "income")
        assert store.ledger.alias("churn", "challenger") is None
        moves = [(d.endpoint, d.alias, d.revision) for d in store.ledger.aliases()]
        assert moves == [
            ("income", "champion", 1),
            ("churn", "champion", 1),
            ("income", "challenger", 1),
            ("income", "champion", 2),
        ]
        assert [d.revision for d in store.ledger.aliases("churn")] == [1]

    def test_rebuilt_folds_equal_the_live_ones(self, store: Store) -> None:
        ledger = store.ledger
        for n in range(4):
            run = f"run-{n}"
            kind = "step.cached" if n % 2 else "step.finished"
            ledger.append(run_started(run), finished(run, f"s{n % 3}", f"k{n % 2}", n, kind=kind), alias_moved("e", n))
            if n != 2:
                ledger.append(run_finished(run))

        def told() -> Any:
            return (
                ledger.runs(),
                ledger.aliases(),
                [ledger.output(f"k{n}") for n in range(2)],
                [ledger.latest(f"s{n}") for n in range(3)],
            )

        live, head = told(), ledger.head()
        assert ledger.verify() == []
        ledger.rebuild()
        assert told() == live
        assert ledger.head() == head
        assert ledger.verify() == []
        ledger.append(run_started("run-9"))
        assert ledger.runs(limit=1)[0].id == "run-9"

    def test_processes_append_at_once_and_lose_nothing(self, store: Store, opener: Callable[[], Store]) -> None:
        count = 500
        store.ledger.append(run_started("run-1"))
        with (
            in_process(_append_many, opener, "one", count) as (one, to_one),
            in_process(_append_many, opener, "two", count) as (two, to_two),
        ):
            to_one.send("go")
            to_two.send("go")
            for process in (one, two):
                process.join(PATIENCE)
                assert process.exitcode == 0
        events = list(store.ledger.events(after=1))
        assert [e.seq for e in events] == list(range(2, 4 * count + 2))
        for who in ("one", "two"):
            assert [e.step for e in events if e.run == who and e.kind == "step.finished"] == [
                str(n) for n in range(count)
            ]
        assert all(a.run == b.run and a.step == b.step for a, b in zip(events[::2], events[1::2], strict=True))
        assert store.ledger.verify() == []
