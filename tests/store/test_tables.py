"""Tables on Delta Lake: digests, crashes, odd places, and files that were touched."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from tests.examples import examples

from modelyard._kit.errors import DataError, NotFound, Tampered, UserError
from modelyard.records import Column
from modelyard.store import Appended, LocalStore, Part, open_store
from modelyard.store.content import ContentDigest
from modelyard.store.parts import newest_by_key

FRAME = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(tmp_path)


def digest(*chunks: pl.DataFrame) -> str:
    columns = [Column(n, str(t)) for n, t in chunks[0].schema.items()]
    content = ContentDigest(columns)
    for chunk in chunks:
        content.update(chunk)
    return content.hexdigest()


CELLS = st.one_of(st.none(), st.text(max_size=3))
ROWS = st.tuples(
    CELLS,
    st.one_of(st.none(), st.floats()),
    st.one_of(st.none(), st.lists(CELLS, max_size=3)),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.none(), st.fixed_dictionaries({"p": st.one_of(st.none(), st.integers(0, 9)), "q": CELLS})),
)
SCHEMA = {
    "text": pl.String,
    "float": pl.Float64,
    "list": pl.List(pl.String),
    "bool": pl.Boolean,
    "struct": pl.Struct({"p": pl.Int64, "q": pl.String}),
}


def frame_of(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@given(st.lists(ROWS, max_size=8), st.lists(st.integers(0, 8), max_size=3))
@settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
def test_the_digest_is_the_same_however_the_rows_are_cut(rows: list[tuple[object, ...]], cuts: list[int]) -> None:
    frame = frame_of(rows)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    assert digest(*(frame[a:b] for a, b in itertools.pairwise(edges))) == digest(frame)


@given(st.lists(ROWS, max_size=4), st.lists(ROWS, max_size=4))
@settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
def test_two_tables_have_one_digest_only_if_they_are_equal(
    one: list[tuple[object, ...]], other: list[tuple[object, ...]]
) -> None:
    a, b = frame_of(one), frame_of(other)
    # 0.0 and -0.0 are equal numbers and different content.
    same = repr(a.to_dicts()) == repr(b.to_dicts())
    assert (digest(a) == digest(b)) == same


def test_the_digest_can_be_recomputed_by_anybody(store: LocalStore) -> None:
    """If this changes, every key of every project is another: raise the format of `ContentDigest` then."""
    streams = {
        "0": struct.pack("<3q", 1, 2, 3),
        "1": b"xz",
        "1.length": struct.pack("<3Q", 1, 0, 1),
        "1.null": struct.pack("<Q", 1),
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in streams.items()}
    told = json.dumps([1, [["a", "Int64"], ["b", "String"]], 3, hashes], sort_keys=True, separators=(",", ":"))
    expected = "7ad6e95795ae4a8e7b28be772211b5e4524fd9129d50f5cfff7b15088853cb19"
    assert hashlib.sha256(told.encode()).hexdigest() == expected
    assert store.tables.write("t", FRAME, key="k").digest == digest(FRAME) == expected


def test_a_not_a_number_is_the_same_whatever_its_bits(store: LocalStore) -> None:
    import numpy as np

    odd = np.array([0x7FF8000000000000, 0xFFF8000000000001], dtype=np.uint64).view(np.float64)
    assert digest(pl.DataFrame({"a": odd})) == digest(pl.DataFrame({"a": [float("nan")] * 2}))


def test_a_table_of_many_row_groups_keeps_its_order(store: LocalStore) -> None:
    frame = pl.select(n=pl.int_range(600_000), m=pl.int_range(600_000) % 7)
    version = store.tables.write("t", frame.lazy().filter(pl.col("m") != 3), key="k")
    expected = frame.filter(pl.col("m") != 3)
    assert_frame_equal(store.tables.read(version).collect(), expected)
    assert version.digest == digest(expected)
    assert version.rows == expected.height


def test_rows_are_read_lazily_and_only_what_is_asked_for(store: LocalStore) -> None:
    version = store.tables.append("t", Appended(None, [Part("d", FRAME)], ("a",)), key="k")
    frame = store.tables.read(version, raw=True)
    assert isinstance(frame, pl.LazyFrame)
    assert "PROJECT 1/2 COLUMNS" in frame.select("b").explain()


@pytest.mark.parametrize("odd", ["sp ace", "[br]", "50%", "#1", "é?", "a=b", "*x*", "'q'", "a+b&c"])
def test_a_project_may_lie_in_a_folder_of_any_name(tmp_path: Path, odd: str) -> None:
    tables = open_store(tmp_path / odd).tables
    first = tables.append("t", Appended(None, [Part("d0", FRAME)]), key="k1")
    orphan = tables.append("t", Appended(first, [Part("d1", FRAME)]), key="k2")
    assert tables.append("t", Appended(first, [Part("d1", FRAME)]), key="k2") == orphan
    second = tables.append("t", Appended(first, [Part("d2", FRAME)]), key="k3")
    assert tables.read(second).collect().height == 6
    assert [p.name for p in tmp_path.iterdir()] == [odd]


def test_a_folder_name_that_delta_reads_as_another_is_refused(tmp_path: Path) -> None:
    tables = open_store(tmp_path / "a%20b").tables
    with pytest.raises(UserError) as caught:
        tables.write("t", FRAME, key="k")
    assert caught.value.code == "store-odd-path"


def test_other_programs_can_read_it(store: LocalStore, tmp_path: Path) -> None:
    frame = FRAME.with_columns(u=pl.lit(7, dtype=pl.UInt8))
    version = store.tables.append("t", Appended(None, [Part("d0", frame)]), key="k1")
    store.tables.append("t", Appended(version, [Part("d1", frame)]), key="k2")
    by_delta = pl.scan_delta(str(tmp_path / ".modelyard/tables/t")).collect()
    assert by_delta.height == 6
    assert by_delta.schema["u"] == pl.Int16
    assert pl.scan_delta(str(tmp_path / ".modelyard/tables/t"), version=0).collect().height == 3


# -- crashes


def test_a_version_whose_step_was_not_recorded_is_adopted(store: LocalStore) -> None:
    """The step wrote its table and was killed before its event: the next run finds it by its key."""
    first = store.tables.write("t", FRAME, key="k1")

    def explode(frame: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError("written twice")

    assert store.tables.write("t", FRAME.lazy().map_batches(explode, schema=FRAME.schema), key="k1") == first


def test_a_version_that_lost_its_file_is_written_again(store: LocalStore, tmp_path: Path) -> None:
    first = store.tables.write("t", FRAME, key="k1")
    for file in (tmp_path / ".modelyard/tables/t").glob("*.parquet"):
        file.unlink()
    second = store.tables.write("t", FRAME, key="k1")
    assert second.address != first.address
    assert second.digest == first.digest
    assert_frame_equal(store.tables.read(second).collect(), FRAME)


def test_a_frame_that_fails_leaves_the_table_as_it_was(store: LocalStore, tmp_path: Path) -> None:
    first = store.tables.write("t", FRAME, key="k1")

    def explode(frame: pl.DataFrame) -> pl.DataFrame:
        raise ValueError("no such luck")

    bad = FRAME.lazy().map_batches(explode, schema=FRAME.schema)
    with pytest.raises(Exception, match="no such luck"):
        store.tables.write("t", bad, key="k2")
    with pytest.raises(Exception, match="no such luck"):
        store.tables.append("u", Appended(None, [Part("d1", FRAME), Part("d2", bad)]), key="k3")
    assert_frame_equal(store.tables.read(first).collect(), FRAME)
    assert len([p for p in (tmp_path / ".modelyard/tables").rglob("*part*") if p.is_file()]) == 1
    assert store.tables.write("t", FRAME, key="k1") == first


def test_what_a_killed_writer_left_is_cleared_away(store: LocalStore, tmp_path: Path) -> None:
    store.tables.write("t", FRAME, key="k1")
    left = tmp_path / ".modelyard/tables/t/.part-000001-00000000.parquet.part"
    left.write_bytes(b"half")
    store.tables.write("t", FRAME, key="k2")
    assert not left.exists()


LOADER = """
import sys
from pathlib import Path
import polars as pl
from modelyard.conformance.store import finished
from modelyard.records import plain, read_value
from modelyard.store import Appended, Part, open_store
store = open_store(Path(sys.argv[1]))
latest = store.ledger.latest("load")
table = read_value(latest.outputs["value"]) if latest else None
for n in range(len(table.parts) if table else 0, 20):
    frame = pl.DataFrame({"n": [n] * 5, "i": range(5)})
    table = store.tables.append("load", Appended(table, [Part(f"d{n}", frame)], ("n", "i")), key=f"k{n}")
    print(n, flush=True)
    store.ledger.append(finished("run", "load", f"k{n}", plain(table)))
print("done", table.digest, table.rows, flush=True)
"""


@pytest.mark.parametrize(
    "kills", [pytest.param(4, marks=pytest.mark.thorough), pytest.param(40, marks=pytest.mark.slow)]
)
def test_a_killed_load_goes_on_and_loads_every_part_once(tmp_path: Path, kills: int) -> None:
    chance = random.Random(11)  # noqa: S311 - moments, no secrets

    def load(root: Path) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", LOADER, root], stdout=subprocess.PIPE, text=True)

    for n in range(kills):
        if n % 10 == 0:
            root = tmp_path / str(n)
        process = load(root)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
    resumed, whole = (load(r).communicate(timeout=120)[0].splitlines()[-1] for r in (root, tmp_path / "undisturbed"))
    assert resumed == whole
    assert resumed.startswith("done")
    store = open_store(root)
    latest = store.ledger.latest("load")
    assert latest is not None
    from modelyard.records import read_value

    rows = store.tables.read(read_value(latest.outputs["value"]), raw=True).collect()
    assert rows.rows() == [(n, i) for n in range(20) for i in range(5)]


# -- files that were touched


def test_a_file_that_is_gone_or_cut_off_is_named(store: LocalStore, tmp_path: Path) -> None:
    version = store.tables.write("t", FRAME, key="k")
    (file,) = (tmp_path / ".modelyard/tables/t").glob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(Tampered) as caught:
        store.tables.read(version)
    assert (caught.value.code, caught.value.problem.where) == ("table-changed", str(file))
    file.unlink()
    with pytest.raises(Tampered, match="is gone"):
        store.tables.read(version)


def test_a_table_that_is_gone_cannot_be_appended_to(store: LocalStore, tmp_path: Path) -> None:
    first = store.tables.append("t", Appended(None, [Part("d0", FRAME)]), key="k1")
    other = open_store(tmp_path / "other")
    with pytest.raises(NotFound):
        other.tables.append("t", Appended(first, [Part("d1", FRAME)]), key="k2")


def test_a_number_too_large_for_its_stored_type_is_not_cut(store: LocalStore) -> None:
    frame = pl.DataFrame({"list": [[2**63]]}, schema={"list": pl.List(pl.UInt64)})
    version = store.tables.write("t", frame, key="k")
    assert store.tables.read(version).collect()["list"].to_list() == [[2**63]]
    with pytest.raises(DataError, match="`big`"):
        store.tables.write("t", pl.DataFrame({"big": [1]}, schema={"big": pl.Int128}), key="k2")


# -- the newest of each key


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.one_of(st.none(), st.integers(0, 4))), max_size=12)
)
@settings(deadline=None, max_examples=examples(60))
def test_the_newest_of_each_key_is_what_a_loop_would_find(rows: list[tuple[int, str, int | None]]) -> None:
    frame = pl.DataFrame(
        [(*row, n) for n, row in enumerate(rows)],
        schema={"x": pl.Int64, "y": pl.String, "at": pl.Int64, "n": pl.Int64},
        orient="row",
    )
    last: dict[tuple[int, str], int] = {}
    newest: dict[tuple[int, str], int] = {}
    for n, (x, y, at) in enumerate(rows):
        last[x, y] = n
        before = newest.get((x, y))
        if before is None or (-1 if at is None else at) >= (-1 if rows[before][2] is None else rows[before][2]):
            newest[x, y] = n
    assert newest_by_key(frame.lazy(), ["x", "y"]).collect()["n"].to_list() == sorted(last.values())
    found = newest_by_key(frame.lazy(), ["x", "y"], "at").collect()
    assert found["n"].to_list() == sorted(newest.values())
    assert found.columns == frame.columns


def test_a_number_that_begins_anew_is_not_the_version_that_was_deleted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    old = store.tables.write("t", FRAME, key="k1")
    grown = store.tables.append("u", Appended(None, [Part("p1", FRAME)]), key="k1")
    shutil.rmtree(tmp_path / ".modelyard/tables")
    # Other rows stand where the ledger has the old ones.
    new = store.tables.write("t", FRAME.reverse(), key="k2")
    other = store.tables.append("u", Appended(None, [Part("p2", FRAME.reverse())]), key="k2")
    assert (new.address, other.address) == (old.address, grown.address)
    for gone, there in ((old, new), (grown, other)):
        assert (store.tables.holds(gone), store.tables.holds(there)) == (False, True)
        with pytest.raises(NotFound):
            store.tables.read(gone)
    # The same rows, made again, are the same version.
    shutil.rmtree(tmp_path / ".modelyard/tables")
    assert store.tables.write("t", FRAME, key="k3") == old
    assert store.tables.holds(old)


@pytest.mark.parametrize("left", [b"", b'{"commitInfo":{"timest', b'3\n{"commitInfo":3}\n', b"\xff\xfe\n"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_record_is_no_version_and_is_named_where_one_is_to_be_written(
    tmp_path: Path, number: int, left: bytes
) -> None:
    store = open_store(tmp_path)
    first = store.tables.append("t", Appended(None, [Part("p1", FRAME)]), key="k1")
    second = store.tables.append("t", Appended(first, [Part("p2", FRAME)]), key="k2")
    folder = tmp_path / ".modelyard/tables/t"
    record = folder / "_delta_log" / f"{number:020d}.json"
    whole = record.read_bytes()
    record.write_bytes(left)
    assert not store.tables.holds((first, second)[number])
    with pytest.raises(NotFound):
        store.tables.read(second)
    if number == 0 or left:
        with pytest.raises(Tampered, match="log of table `t` is damaged") as caught:
            store.tables.write("t", FRAME, key="k3")
        assert caught.value.problem.where == str(folder / "_delta_log")
        assert str(folder) in caught.value.problem.hint
    # Both ways out that it names.
    record.write_bytes(whole)
    assert store.tables.read(second).collect().height == 2 * FRAME.height
    record.write_bytes(left)
    shutil.rmtree(folder)
    again = store.tables.append("t", Appended(None, [Part("p1", FRAME)]), key="k1")
    assert store.tables.holds(again)
