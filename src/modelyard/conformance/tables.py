"""What all tables of a store must do, as tests; `modelyard.conformance.store` says how to use them."""

# Tests say by their names what they promise, and assert.
# ruff: noqa: D102, S101

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from modelyard._kit.errors import DataError, NotFound
from modelyard.conformance.opened import PATIENCE, OpenStore, in_process
from modelyard.records import TableVersion
from modelyard.store.base import Appended, Part, Store

if TYPE_CHECKING:
    import polars as pl

__all__ = ["TablesSuite"]


def _append_part(opener: Callable[[], Store], name: str, number: int, pipe: Connection) -> None:
    import polars as pl

    store = opener()
    pipe.send("ready")
    pipe.recv()
    store.tables.write(name, pl.DataFrame({"a": [number] * 3}), key=f"key-{number}")
    store.close()


class TablesSuite(OpenStore):
    """The tests of `store.tables`."""

    def test_a_table_comes_back_as_it_was_written(self, store: Store) -> None:
        frame = _of_every_type()
        version = store.tables.write("a.b", frame, key="k", parents=("p1",))
        back = store.tables.read(version).collect()
        _assert_same(back, _as_kept(frame))
        assert (version.name, version.rows, version.parents, version.parts) == ("a.b", frame.height, ("p1",), ())
        assert [c.name for c in version.columns] == frame.columns
        assert [c.type for c in version.columns] == [str(t) for t in back.dtypes]

    def test_a_table_that_is_there_is_held_and_no_other(self, store: Store) -> None:
        version = store.tables.write("a.b", _of_every_type(), key="k")
        assert store.tables.holds(version)
        for address in ("a.b@7", "other@0", "a.b", ""):
            assert not store.tables.holds(msgspec.structs.replace(version, address=address)), address

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
            in_process(_append_part, opener, "t", 1) as (one, to_one),
            in_process(_append_part, opener, "t", 2) as (two, to_two),
        ):
            to_one.send("go")
            to_two.send("go")
            for process in (one, two):
                process.join(PATIENCE)
                assert process.exitcode == 0
        for number in (1, 2):
            frame = pl.DataFrame({"a": [number] * 3})
            # Adopted: it is there already.
            version = store.tables.write("t", pl.DataFrame({"a": [0]}), key=f"key-{number}")
            _assert_same(store.tables.read(version).collect(), frame)


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
