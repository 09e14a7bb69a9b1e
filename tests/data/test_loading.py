from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from modelyard._kit.errors import DataError
from modelyard.data import loading, readers

ROWS = "id,age,seen\n1,30,2026-01-01\n2,40,2026-01-02\n"


def test_only_new_files_are_read(project, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = readers.open_file
    monkeypatch.setattr(readers, "open_file", lambda path, *a: opened.append(path.name) or real(path, *a))
    project.source |= {"key": ["id"]}
    project.file("data/1.csv", ROWS)
    first = project.load()
    project.file("data/2.csv", "id,age,seen\n3,50,2026-01-03\n2,41,2026-01-04\n")
    second = project.load(first)
    assert opened == ["1.csv", "2.csv"]
    assert second.parts[: len(first.parts)] == first.parts
    assert second.rows == 4
    assert project.rows(second).sort("id")["age"].to_list() == [30, 41, 50]
    third = project.load(second)
    assert opened == ["1.csv", "2.csv"]
    assert third.digest == second.digest


def test_a_renamed_or_copied_file_is_the_same_part(project) -> None:
    first_file = project.file("data/1.csv", ROWS)
    first = project.load()
    first_file.rename(project.root / "data" / "9.csv")
    project.file("data/copy.csv", ROWS)
    assert project.load(first).digest == first.digest
    assert project.rows(project.load(first)).height == 2


def test_a_changed_file_makes_the_table_anew(project) -> None:
    project.file("data/1.csv", ROWS)
    project.file("data/2.csv", "id,age,seen\n3,50,2026-01-03\n")
    first = project.load()
    project.file("data/1.csv", ROWS.replace("40", "44"))
    load = project.read(first)
    assert load.previous is None
    assert len(load.parts) == 2
    assert project.rows(project.load(first))["age"].to_list() == [30, 44, 50]


def test_a_vanished_file_takes_its_rows_along(project) -> None:
    project.file("data/1.csv", ROWS)
    project.file("data/2.csv", "id,age,seen\n3,50,2026-01-03\n")
    first = project.load()
    (project.root / "data/1.csv").unlink()
    assert project.rows(project.load(first))["age"].to_list() == [50]


@pytest.mark.parametrize("change", [{"key": ["id"]}, {"null_values": ["40"]}, {"types": {"age": "float"}}])
def test_another_way_of_reading_makes_the_table_anew(project, change) -> None:
    project.file("data/1.csv", ROWS)
    first = project.load()
    project.types = change.pop("types", {})
    project.source |= change
    assert project.read(first).previous is None


def test_late_rows_do_not_replace_newer_ones(project) -> None:
    project.source |= {"key": ["id"], "cursor": "seen"}
    project.file("data/1.csv", "id,age,seen\n1,30,2026-01-05\n2,40,2026-01-05\n")
    first = project.load()
    project.file("data/2.csv", "id,age,seen\n1,29,2026-01-01\n2,41,2026-01-09\n3,50,2026-01-01\n")
    second = project.load(first)
    assert dict(project.rows(second).select("id", "age").rows()) == {1: 30, 2: 41, 3: 50}
    assert project.rows(second, raw=True).height == 5


def test_result_is_the_same_whether_loaded_at_once_or_file_by_file(project) -> None:
    project.source |= {"key": ["id"], "cursor": "seen"}
    project.file("data/1.csv", "id,age,seen\n1,30,2026-01-05\n2,40,2026-01-05\n2,40,2026-01-05\n")
    first = project.load()
    project.file("data/2.csv", "id,age,seen\n1,29,2026-01-01\n,1,2026-01-09\n3,50,\n")
    by_file, at_once = project.load(first), project.load()
    assert by_file.digest == at_once.digest
    assert project.rows(by_file).equals(project.rows(at_once))


def test_duplicates_within_a_file_are_told_from_newer_rows(project) -> None:
    project.source |= {"key": ["id"], "cursor": "seen"}
    project.file(
        "data/1.csv",
        "id,age,seen\n1,30,2026-01-01\n1,31,2026-01-02\n2,40,2026-01-01\n2,41,2026-01-01\n2,39,2025-01-01\n",
    )
    good, bad, results = project.hold(project.load())
    assert good.sort("id").select("id", "age").rows() == [(1, 31), (2, 40)]
    assert bad.select("_line", "id", "age").rows() == [(5, "2", "41")]
    assert results["duplicate"].evidence.value == 1


def test_without_cursor_every_second_row_of_a_key_in_one_file_is_a_duplicate(project) -> None:
    project.source |= {"key": ["id"]}
    project.file("data/1.csv", "id,age\n1,30\n1,31\n1,32\n2,40\n")
    first = project.load()
    good, bad, _ = project.hold(first)
    assert (good["age"].to_list(), bad["age"].to_list()) == ([30, 40], ["31", "32"])
    project.file("data/2.csv", "id,age\n1,33\n")
    good, bad, _ = project.hold(project.load(first))
    assert sorted(good["age"]) == [33, 40]


def test_rows_without_key_cursor_or_whole_line_replace_nothing(project) -> None:
    project.source |= {"key": ["id"], "cursor": "seen"}
    project.file("data/1.csv", "id,age,seen\n1,30,2026-01-01\n,31,2026-01-01\n,32,2026-01-01\n")
    first = project.load()
    project.file("data/2.csv", "id,age,seen\n,33,2026-01-01\n1,34,\n1,35,2026-01-02,more\n1,36\n")
    good, bad, results = project.hold(project.load(first))
    assert good["age"].to_list() == [30]
    assert bad["age"].to_list() == ["31", "32", "33", "34", "35", "36"]
    assert {n: r.evidence.value for n, r in results.items() if r.status == "failed"} == {
        "cells": 2,
        "key": 3,
        "seen.cursor": 1,
    }


def test_a_column_that_vanishes_is_named_with_what_is_near(project) -> None:
    project.file("data/1.csv", ROWS)
    first = project.load()
    project.file("data/2.csv", "id,agge,seen\n3,50,2026-01-03\n")
    with pytest.raises(DataError) as caught:
        project.load(first)
    problem = caught.value.problem
    assert (problem.code, problem.where) == ("data-column-vanished", "data/2.csv")
    assert "`age`" in problem.message
    assert "`agge`" in problem.hint


def test_a_column_that_one_of_the_first_files_lacks_is_named(project) -> None:
    project.file("data/1.csv", ROWS)
    project.file("data/2.csv", "id,age\n3,50\n")
    with pytest.raises(DataError) as caught:
        project.load()
    assert caught.value.code == "data-column-vanished"


def test_the_order_of_columns_does_not_matter(project) -> None:
    project.file("data/1.csv", ROWS)
    first = project.load()
    project.file("data/2.csv", "seen,age,id\n2026-01-03,50,3\n")
    load = project.read(first)
    assert len(load.parts) == 1
    assert project.rows(project.load(first)).select("id", "age").rows() == [(1, 30), (2, 40), (3, 50)]


@pytest.mark.parametrize("later", ["seen,more,age,id\n2026-01-03,7,50,3\n", pl.DataFrame({"id": [3], "more": [7]})])
def test_a_column_that_comes_up_later_is_taken_in(project, later) -> None:
    project.file("data/1.csv", ROWS)
    first = project.load()
    if isinstance(later, pl.DataFrame):
        later = later.with_columns(age=pl.lit(50), seen=pl.lit(date(2026, 1, 3)))
    project.file("data/2.csv", later)
    second = project.load(first)
    assert second.digest == project.load().digest
    rows = project.rows(second)
    assert rows.select("id", "age", "more").rows() == [(1, 30, None), (2, 40, None), (3, 50, 7)]
    good, bad, _ = project.hold(second)
    assert (good.height, bad.height) == (3, 0)
    # From then on it belongs to the table.
    project.file("data/3.csv", ROWS.replace("1,30", "4,30"))
    with pytest.raises(DataError) as caught:
        project.load(second)
    assert (caught.value.code, caught.value.problem.where) == ("data-column-vanished", "data/3.csv")


def test_a_declared_type_is_that_of_every_file(project) -> None:
    project.types = {"age": "int", "seen": "date"}
    project.file("data/1.csv", ROWS)
    first = project.load()
    project.file("data/2.csv", "id,age,seen\n3,fifty,2026-01-03\n4,60,soon\n")
    assert len(project.read(first).parts) == 1
    good, bad, results = project.hold(project.load(first))
    assert good["age"].to_list() == [30, 40]
    assert bad.select("_file", "_line", "age", "seen").rows() == [
        ("data/2.csv", 2, "fifty", "2026-01-03"),
        ("data/2.csv", 3, "60", "soon"),
    ]
    assert bad["_reasons"].to_list() == [
        ["age: not a whole number, as it was in the rows before"],
        ["seen: not a date (YYYY-MM-DD), as it was in the rows before"],
    ]
    assert set(results) == {"age.type", "seen.type"}


def csv(*values: object) -> str:
    return "id,v\n" + "".join(f"{at},{value}\n" for at, value in enumerate(values))


def parquet(*values: object) -> pl.DataFrame:
    return pl.DataFrame({"id": range(len(values)), "v": values})


@pytest.mark.parametrize(
    ("before", "later", "kind"),
    [
        (csv(1, 2), csv(1.5, 2.5), "Float64"),
        (csv(1, 2), csv("x", 2), "String"),
        (csv(1, 2), csv("007", 2), "String"),
        (csv(1.5, 2), csv(3, 4), "Float64"),
        (csv("2026-01-01"), csv("2026-01-01 10:00"), "Datetime(time_unit='us', time_zone='UTC')"),
        (csv("", ""), csv(1, 2), "Int64"),
        (csv("a", ""), csv(1, 2), "String"),
        (csv("true"), csv("yes"), "String"),
        (csv(1, 2), parquet(1.5, None), "Float64"),
        (parquet(1, 2), parquet(1.5, None), "Float64"),
        (parquet(1.5, 2.5), parquet(1, 2), "Float64"),
        (parquet(1, 2), csv("x", 3), "Int64"),
        (csv("x", 3), parquet(1, 2), "Int64"),
        (
            parquet(date(2026, 1, 1)),
            parquet(datetime(2026, 1, 1, 10, tzinfo=UTC)),
            "Datetime(time_unit='us', time_zone='UTC')",
        ),
        (parquet([1], [2]), parquet([3], [4]), "List(Int64)"),
    ],
)
def test_types_are_those_of_a_fresh_load(project, before, later, kind: str) -> None:
    project.file("data/1", before)
    first = project.load()
    project.file("data/2", later)
    grown, fresh = project.load(first), project.load()
    assert {c.name: c.type for c in grown.columns}["v"] == kind
    assert grown.digest == fresh.digest
    assert project.rows(grown, raw=True).equals(project.rows(fresh, raw=True))
    # What fits is added to what is there.
    assert (project.read(first).previous is None) == (first.columns != grown.columns)


def test_key_and_cursor_have_to_be_there(project) -> None:
    project.file("data/1.csv", ROWS)
    project.source |= {"key": ["Id"]}
    with pytest.raises(DataError) as caught:
        project.load()
    assert caught.value.code == "data-column-missing"
    assert "`id`" in caught.value.problem.hint


def test_header_only_is_no_rows_at_first_and_nothing_new_later(project) -> None:
    project.file("data/1.csv", "id,age,seen\n")
    with pytest.raises(DataError) as caught:
        project.load()
    assert caught.value.code == "data-no-rows"
    project.file("data/2.csv", ROWS)
    first = project.load()
    assert first.rows == 2
    project.file("data/3.csv", "id,age,seen\n\n")
    assert project.rows(project.load(first)).height == 2


def test_csv_and_parquet_make_one_table(project) -> None:
    project.file("data/1.csv", "id,age,name\n1,30,x\n")
    project.file("data/2.parquet", pl.DataFrame({"id": [2], "age": [40.0], "name": ["y"]}))
    version = project.load()
    assert [c.type for c in version.columns[:3]] == ["Int64", "Float64", "String"]
    assert project.rows(version).select("id", "age", "name").rows() == [(1, 30.0, "x"), (2, 40.0, "y")]


def test_a_large_file_stays_on_disk_until_it_is_stored(project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_EAGER_BYTES", 0)
    project.source |= {"key": ["id"]}
    project.file("data/1.csv", "id,age\n1,30\n1,31\n2,x\n")
    project.types = {"age": "int"}
    load = project.read()
    assert isinstance(load.parts[0].frame, pl.LazyFrame)
    good, bad, _ = project.hold(project.load(), {"age": {"type": "int"}})
    assert (good["age"].to_list(), bad["age"].to_list()) == ([30], ["31", "x"])


def test_a_file_that_changes_after_it_was_listed_is_refused(project) -> None:
    from modelyard.data import steps

    project.file("data/1.csv", ROWS)
    state = project.probe()
    project.file("data/1.csv", ROWS + "3,1,2026-01-01\n")
    with pytest.raises(DataError) as caught:
        steps.load(source=project.source, types={}, state=state)
    assert caught.value.code == "data-source-changing"


def test_part_digests_depend_on_content_and_reading_alone() -> None:
    assert loading.part_digest("a" * 64, {"key": None}) == loading.part_digest("a" * 64, {"key": None})
    assert loading.part_digest("a" * 64, {"key": None}) != loading.part_digest("b" * 64, {"key": None})
    assert loading.part_digest("a" * 64, {"key": None}) != loading.part_digest("a" * 64, {"key": ["id"]})
