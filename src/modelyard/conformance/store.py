"""What every store must do, as tests: subclass `StoreSuite`, give the fixture `store`, and run pytest.

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def store(self, tmp_path):
            store = MyStore(tmp_path)
            yield store
            store.close()

        @pytest.fixture
        def opener(self, tmp_path):
            return functools.partial(MyStore, tmp_path)

With `opener`, a function without arguments that can be pickled and opens the same store again, the suite also
lets several processes write at once.
"""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from modelyard._kit.digest import digest_bytes
from modelyard._kit.errors import Busy, DataError, NotFound, UserError
from modelyard.records import Draft, Event, TableVersion, fold_run
from modelyard.store.base import Appended, Part, Store

if TYPE_CHECKING:
    import polars as pl

__all__ = ["StoreSuite", "alias_moved", "finished", "run_finished", "run_started"]

_PATIENCE = 60.0


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


def _append_part(opener: Callable[[], Store], name: str, number: int, pipe: Connection) -> None:
    import polars as pl

    store = opener()
    pipe.send("ready")
    pipe.recv()
    store.tables.write(name, pl.DataFrame({"a": [number] * 3}), key=f"key-{number}")
    store.close()


def _hold(opener: Callable[[], Store], name: str, run: str, pipe: Connection) -> None:
    with opener().hold(name, who={"run": run}):
        pipe.send("held")
        pipe.recv()


@contextmanager
def _process(target: Callable[..., None], *args: Any) -> Iterator[tuple[Any, Connection]]:
    """Run a function in a process of its own; it says one word when it is ready and waits for one to go on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.poll(_PATIENCE), "the process did not begin"
        ours.recv()
        yield process, ours
    finally:
        if process.is_alive():
            process.kill()
        process.join(_PATIENCE)
        process.close()
        ours.close()


class StoreSuite:
    """The tests of a store; a subclass gives `store`, and `opener` if processes can share it."""

    @pytest.fixture
    def store(self) -> Store:
        """A new, empty store."""
        pytest.fail("give a fixture `store` that yields a new, empty store")

    @pytest.fixture
    def opener(self) -> Callable[[], Store]:
        """Open the same store again, also in another process."""
        pytest.skip("no fixture `opener`: processes are not tested")

    # -- the ledger

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
            _process(_append_many, opener, "one", count) as (one, to_one),
            _process(_append_many, opener, "two", count) as (two, to_two),
        ):
            to_one.send("go")
            to_two.send("go")
            for process in (one, two):
                process.join(_PATIENCE)
                assert process.exitcode == 0
        events = list(store.ledger.events(after=1))
        assert [e.seq for e in events] == list(range(2, 4 * count + 2))
        for who in ("one", "two"):
            assert [e.step for e in events if e.run == who and e.kind == "step.finished"] == [
                str(n) for n in range(count)
            ]
        assert all(a.run == b.run and a.step == b.step for a, b in zip(events[::2], events[1::2], strict=True))
        assert store.ledger.verify() == []

    # -- blobs

    def test_a_blob_is_found_by_its_content(self, store: Store) -> None:
        for data in (b"", b"abc", bytes(range(256)) * 5000):
            digest = store.blobs.put(data)
            assert digest == digest_bytes(data)
            assert store.blobs.put(data) == digest
            assert store.blobs.get(digest) == data

    def test_a_blob_that_is_not_there_is_said_so(self, store: Store) -> None:
        for digest in ("0" * 64, "", "../ledger.db", "ab/../../x"):
            with pytest.raises(NotFound):
                store.blobs.get(digest)
            with pytest.raises(NotFound):
                store.blobs.folder(digest)

    def test_a_folder_is_stored_whole(self, store: Store) -> None:
        address = digest_bytes(b"manifest")
        files = {"model.onnx": b"m", "card/index.html": b"<p>", "card/deep/er.json": b"{}"}
        path = store.blobs.put_folder(address, files)
        assert store.blobs.put_folder(address, files) == path == store.blobs.folder(address)
        found = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        assert found == files
        assert all(p.stat().st_mode & 0o222 == 0 for p in path.rglob("*") if p.is_file())

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", ""])
    def test_a_folder_holds_no_file_outside_it(self, store: Store, name: str) -> None:
        address = digest_bytes(b"bad")
        with pytest.raises(UserError):
            store.blobs.put_folder(address, {"fine": b"", name: b"x"})
        with pytest.raises(NotFound):
            store.blobs.folder(address)

    # -- tables

    def test_a_table_comes_back_as_it_was_written(self, store: Store) -> None:
        frame = _of_every_type()
        version = store.tables.write("a.b", frame, key="k", parents=("p1",))
        back = store.tables.read(version).collect()
        _assert_same(back, _as_kept(frame))
        assert (version.name, version.rows, version.parents, version.parts) == ("a.b", frame.height, ("p1",), ())
        assert [c.name for c in version.columns] == frame.columns
        assert [c.type for c in version.columns] == [str(t) for t in back.dtypes]

    def test_an_empty_table_keeps_its_columns(self, store: Store) -> None:
        frame = _of_every_type().clear()
        version = store.tables.write("t", frame, key="k")
        assert version.rows == 0
        _assert_same(store.tables.read(version).collect(), _as_kept(frame))

    def test_a_lazy_frame_is_the_same_table(self, store: Store) -> None:
        frame = _of_every_type()
        eager = store.tables.write("t", frame, key="k1")
        lazy = store.tables.write("t", frame.lazy(), key="k2")
        assert (lazy.digest, lazy.columns) == (eager.digest, eager.columns)

    def test_the_digest_speaks_for_names_types_values_and_order(self, store: Store) -> None:
        import polars as pl

        base = pl.DataFrame({"a": [1, 2], "b": ["x", "yz"]})
        others = [
            base.rename({"a": "c"}),
            base.select("b", "a"),
            base.reverse(),
            base.cast({"a": pl.Int32}),
            base.with_columns(b=pl.Series(["xy", "z"])),
            base.with_columns(b=pl.Series(["", None])),
            base.with_columns(b=pl.Series([None, ""])),
            base.with_columns(a=pl.Series([1, None])),
            base.with_columns(a=pl.Series([1, 0])),
            base.with_columns(a=pl.Series([[1], [2]])),
            base.with_columns(a=pl.Series([[1, 2], []])),
            base.with_columns(a=pl.Series([[1, 2], None])),
            base.head(1),
            base.clear(),
        ]
        digests = [store.tables.write("t", f, key=f"k{n}").digest for n, f in enumerate([base, *others])]
        assert len(set(digests)) == len(digests)
        assert store.tables.write("other", base, key="k").digest == digests[0]

    def test_the_digest_does_not_depend_on_chunks(self, store: Store) -> None:
        import polars as pl

        frame = _of_every_type()
        pieces = pl.concat([frame[:1], frame[1:2], frame[2:]], rechunk=False)
        assert pieces.n_chunks() == 3
        digests = {store.tables.write("t", f, key=f"k{n}").digest for n, f in enumerate((frame, pieces))}
        assert len(digests) == 1

    def test_old_versions_stay_readable(self, store: Store) -> None:
        import polars as pl

        frames = [
            pl.DataFrame({"a": [1, 2]}),
            pl.DataFrame({"b": ["x"]}),
            # The first time without a zone comes late.
            pl.DataFrame({"a": [datetime(2026, 1, 1)]}),  # noqa: DTZ001
            pl.DataFrame({"a": [3.5]}),
        ]
        versions = [store.tables.write("t", frame, key=f"k{n}") for n, frame in enumerate(frames)]
        assert len({v.address for v in versions}) == len(versions)
        for frame, version in zip(frames, versions, strict=True):
            _assert_same(store.tables.read(version).collect(), frame)

    def test_a_key_is_written_once(self, store: Store) -> None:
        import polars as pl

        first = store.tables.write("t", pl.DataFrame({"a": [1]}), key="k1", parents=("p",))
        assert store.tables.write("t", pl.DataFrame({"a": [1]}), key="k1", parents=("p",)) == first
        store.tables.write("t", pl.DataFrame({"a": [2]}), key="k2")
        assert store.tables.write("t", pl.DataFrame({"a": [1]}), key="k1", parents=("p",)) == first

    @pytest.mark.parametrize("name", ["a.b", "with space", "ümläut", "a/b", "..", ".hidden", "50%", "%2F", "a@1"])
    def test_any_name_is_a_table(self, store: Store, name: str) -> None:
        import polars as pl

        frame = pl.DataFrame({"a b,c;d": [1], "é=%": ["x"]})
        version = store.tables.write(name, frame, key="k")
        _assert_same(store.tables.read(version).collect(), frame)
        other = store.tables.write(f"{name}x", frame.head(0), key="k")
        assert store.tables.read(other).collect().height == 0
        assert store.tables.read(version).collect().height == 1

    def test_many_parts_are_read_in_the_order_of_loading(self, store: Store) -> None:
        import polars as pl

        version: TableVersion | None = None
        for n in range(23):
            parts = [Part(f"d{n}-{i}", pl.DataFrame({"n": [n * 10 + i] * 2, "i": [0, 1]})) for i in range(1 + n % 3)]
            version = store.tables.append("t", Appended(version, parts), key=f"k{n}")
        assert version is not None
        back = store.tables.read(version).collect()
        expected = [n * 10 + i for n in range(23) for i in range(1 + n % 3) for _ in range(2)]
        assert back["n"].to_list() == expected
        assert version.rows == len(expected)
        assert len(version.parts) == len(expected) // 2

    def test_parts_loaded_at_once_or_one_by_one_are_the_same_table(self, store: Store) -> None:
        import polars as pl

        a, b = (Part(f"d{n}", pl.DataFrame({"n": [n]})) for n in range(2))
        at_once = store.tables.append("t", Appended(None, [a, b], ("n",)), key="k1")
        first = store.tables.append("u", Appended(None, [a], ("n",)), key="k2")
        second = store.tables.append("u", Appended(first, [b], ("n",)), key="k3")
        assert second.digest == at_once.digest != first.digest
        assert second.parts == at_once.parts == ("d0", "d1")
        assert second.parents == (first.digest,)
        other = store.tables.append("v", Appended(None, [b, a], ("n",)), key="k4")
        assert other.digest != at_once.digest
        _assert_same(store.tables.read(second).collect(), store.tables.read(at_once).collect())
        _assert_same(store.tables.read(first).collect(), pl.DataFrame({"n": [0]}))

    def test_a_part_is_appended_exactly_once(self, store: Store) -> None:
        import polars as pl

        a, b = (Part(f"d{n}", pl.DataFrame({"n": [n]})) for n in range(2))
        first = store.tables.append("t", Appended(None, [a, a]), key="k1")
        assert first.rows == 1
        assert store.tables.append("t", Appended(first, [a]), key="k2") == first
        second = store.tables.append("t", Appended(first, [a, b, b]), key="k3")
        assert second.parts == ("d0", "d1")
        assert store.tables.append("t", Appended(first, [a, b]), key="k3") == second
        assert store.tables.read(second).collect()["n"].to_list() == [0, 1]

    def test_a_version_that_no_event_points_at_is_not_built_upon(self, store: Store) -> None:
        import polars as pl

        a, b, c = (Part(f"d{n}", pl.DataFrame({"n": [n]})) for n in range(3))
        first = store.tables.append("t", Appended(None, [a]), key="k1")
        orphan = store.tables.append("t", Appended(first, [b]), key="k2")
        after = store.tables.append("t", Appended(first, [c]), key="k3")
        assert after.parts == ("d0", "d2")
        assert store.tables.read(after).collect()["n"].to_list() == [0, 2]
        assert store.tables.read(orphan).collect()["n"].to_list() == [0, 1]
        # And the first load again, as after a ledger that was lost.
        again = store.tables.append("t", Appended(None, [c]), key="k4")
        assert store.tables.read(again).collect()["n"].to_list() == [2]
        last = store.tables.append("t", Appended(after, [b]), key="k5")
        assert store.tables.read(last).collect()["n"].to_list() == [0, 2, 1]

    def test_rows_are_appended_to_a_table_that_was_written_whole(self, store: Store) -> None:
        import polars as pl

        whole = store.tables.write("t", pl.DataFrame({"n": [0, 1]}), key="k1")
        more = store.tables.append("t", Appended(whole, [Part("d", pl.DataFrame({"n": [2]}))]), key="k2")
        assert more.rows == 3
        assert more.digest != whole.digest
        assert store.tables.read(more).collect()["n"].to_list() == [0, 1, 2]

    def test_columns_that_change_between_parts_are_refused_and_named(self, store: Store) -> None:
        import polars as pl

        before = pl.DataFrame({"a": [1], "b": ["x"], "c": [True]})
        first = store.tables.append("t", Appended(None, [Part("d0", before)]), key="k1")
        now = pl.DataFrame({"a": ["1"], "c": [True], "new": [1]})
        with pytest.raises(DataError) as caught:
            store.tables.append("t", Appended(first, [Part("d1", now)]), key="k2")
        assert caught.value.code == "data-schema-changed"
        for word in ("`a` changed from Int64 to String", "`b` vanished", "`new` (Int64) appeared"):
            assert word in str(caught.value)
        with pytest.raises(DataError, match="`b` vanished"):
            store.tables.append("u", Appended(None, [Part("d0", before), Part("d1", before.drop("b"))]), key="k3")
        assert store.tables.read(first).collect().height == 1
        moved = store.tables.append("t", Appended(first, [Part("d2", before.select("c", "b", "a"))]), key="k4")
        _assert_same(store.tables.read(moved).collect(), pl.concat([before, before]))

    def test_readers_see_the_newest_row_of_each_key(self, store: Store) -> None:
        import polars as pl

        a = pl.DataFrame({"id": [1, 2, 3, 1], "at": [5, 5, 5, 4], "v": ["a", "b", "c", "old"]})
        b = pl.DataFrame({"id": [2, 4, 3], "at": [9, 1, 2], "v": ["B", "d", "late"]})
        parts = [Part("a", a), Part("b", b)]
        by_load = store.tables.append("t", Appended(None, parts, ("id",)), key="k1")
        assert store.tables.read(by_load).collect()["v"].to_list() == ["old", "B", "d", "late"]
        by_time = store.tables.append("t", Appended(by_load, [], ("id",), "at"), key="k2")
        assert store.tables.read(by_time).collect()["v"].to_list() == ["a", "c", "B", "d"]
        assert by_time.digest != by_load.digest
        assert by_time.rows == 7
        _assert_same(store.tables.read(by_time, raw=True).collect(), pl.concat([a, b]))

    def test_of_equally_new_rows_the_last_loaded_is_seen(self, store: Store) -> None:
        import polars as pl

        frame = pl.DataFrame(
            {"x": [1, 1, 1, 2], "y": ["a", "a", "a", "a"], "at": [7, None, 7, None], "v": [0, 1, 2, 3]}
        )
        version = store.tables.append("t", Appended(None, [Part("d", frame)], ("x", "y"), "at"), key="k")
        assert store.tables.read(version).collect()["v"].to_list() == [2, 3]

    def test_a_table_needs_something_to_be_made_of(self, store: Store) -> None:
        import polars as pl

        with pytest.raises(DataError):
            store.tables.append("t", Appended(None, []), key="k")
        with pytest.raises(DataError):
            store.tables.write("t", pl.DataFrame(), key="k")
        with pytest.raises(DataError, match="`o`"):
            store.tables.write("t", pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}), key="k")

    def test_a_version_that_is_not_there_is_said_so(self, store: Store) -> None:
        import polars as pl

        version = store.tables.write("t", pl.DataFrame({"a": [1]}), key="k")
        for address in ("t@99", "nope@0", "t", ""):
            with pytest.raises(NotFound):
                store.tables.read(msgspec.structs.replace(version, address=address))

    def test_processes_write_one_table_at_once(self, store: Store, opener: Callable[[], Store]) -> None:
        import polars as pl

        with (
            _process(_append_part, opener, "t", 1) as (one, to_one),
            _process(_append_part, opener, "t", 2) as (two, to_two),
        ):
            to_one.send("go")
            to_two.send("go")
            for process in (one, two):
                process.join(_PATIENCE)
                assert process.exitcode == 0
        for number in (1, 2):
            frame = pl.DataFrame({"a": [number] * 3})
            # Adopted: it is there already.
            version = store.tables.write("t", pl.DataFrame({"a": [0]}), key=f"key-{number}")
            _assert_same(store.tables.read(version).collect(), frame)

    # -- who holds what

    def test_a_name_is_held_by_one(self, store: Store) -> None:
        assert store.holder("run") is None
        with store.hold("run", who={"run": "run-1"}):
            who = store.holder("run")
            assert who is not None
            assert who["run"] == "run-1"
            with pytest.raises(Busy, match="run-1") as caught, store.hold("run", who={"run": "run-2"}):
                pass
            assert caught.value.problem.hint
            with store.hold("other", who={}):
                assert store.holder("other") is not None
        assert store.holder("run") is None
        with store.hold("run", who={"run": "run-2"}):
            assert (store.holder("run") or {})["run"] == "run-2"

    def test_a_name_is_free_after_an_error(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.hold("run", who={}):
            _ = 1 / 0
        assert store.holder("run") is None

    def test_a_name_is_free_when_its_process_is_killed(self, store: Store, opener: Callable[[], Store]) -> None:
        with _process(_hold, opener, "run", "run-7") as (process, _):
            assert (store.holder("run") or {})["run"] == "run-7"
            with pytest.raises(Busy, match="run-7"), store.hold("run", who={}):
                pass
            process.kill()
            process.join(_PATIENCE)
            assert store.holder("run") is None
            with store.hold("run", who={}):
                pass


def _of_every_type() -> pl.DataFrame:
    """Return three rows with every common type, the last all null."""
    import polars as pl

    at = datetime(2026, 11, 21, 14, 3, 5, 123456)  # noqa: DTZ001 - a time without a zone is meant
    values: dict[str, tuple[list[Any], Any]] = {
        "bool": ([True, False], pl.Boolean),
        "text": (["", "zoë 😀"], pl.String),
        "bytes": ([b"", b"\x00\xff"], pl.Binary),
        "date": ([date(1969, 12, 31), date(2026, 2, 28)], pl.Date),
        "time": ([time(0, 0, 0, 1), time(23, 59)], pl.Time),
        "naive": ([at, at], pl.Datetime("us")),
        "ms": ([at.replace(microsecond=0)] * 2, pl.Datetime("ms")),
        "ns": ([at, at], pl.Datetime("ns")),
        "utc": ([at.replace(tzinfo=UTC)] * 2, pl.Datetime("us", "UTC")),
        "berlin": ([at.replace(tzinfo=UTC)] * 2, pl.Datetime("us", "Europe/Berlin")),
        "lasted": ([timedelta(days=-1), timedelta(microseconds=7)], pl.Duration("us")),
        "decimal": ([Decimal("-1.50"), Decimal("2.25")], pl.Decimal(12, 2)),
        "category": (["b", "a"], pl.Categorical),
        "enum": (["b", "a"], pl.Enum(["a", "b"])),
        "list": ([[1, None], []], pl.List(pl.Int64)),
        "texts": ([["", None, "x"], []], pl.List(pl.String)),
        "lists": ([[[1], None, []], []], pl.List(pl.List(pl.Int32))),
        "struct": ([{"a": 1, "b": "x"}, {"a": None, "b": ""}], pl.Struct({"a": pl.Int64, "b": pl.String})),
        "nothing": ([None, None], pl.Null),
    }
    for bits in (8, 16, 32, 64):
        values[f"i{bits}"] = ([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1], getattr(pl, f"Int{bits}"))
        values[f"u{bits}"] = ([0, 2**bits - 1], getattr(pl, f"UInt{bits}"))
    for bits in (32, 64):
        values[f"f{bits}"] = ([float("nan"), -0.5], getattr(pl, f"Float{bits}"))
    return pl.DataFrame([pl.Series(name, [*cells, None], dtype=dtype) for name, (cells, dtype) in values.items()])


def _as_kept(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return frame.with_columns(pl.col("category", "enum").cast(pl.String))


def _assert_same(one: pl.DataFrame, other: pl.DataFrame) -> None:
    from polars.testing import assert_frame_equal

    assert_frame_equal(one, other, check_exact=True)
