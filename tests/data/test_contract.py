from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.errors import DataError
from modelyard.data.contract import hold


def held(frame: pl.DataFrame, rules: dict[str, Any], **more: Any) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    good, bad, results = hold(frame, name="t", rules=rules, **{"bad_rows": "quarantine"} | more)
    return good.collect(), bad, {r.check.name.removeprefix("contract.t."): r.evidence.value for r in results}


DIRTY = """id,age,income,code,mail,when
1,30,<=50K,AB1,a@x.org,2026-01-01
2,16,<=50K,AB2,b@x.org,2026-01-01
3,abc,>50K,AB3,c@x.org,2026-01-01
4,,>50K,AB4,d@x.org,2026-01-01
5,40,>50K.,AB5,e@x.org,2026-01-01
6,41,>50K,ab6,f@x.org,2026-01-01
7,42,>50K,AB7,f@x.org,2026-01-01
7,43,>50K,AB8,g@x.org,2026-01-01
8,101,maybe,AB9,h@x.org,2025-12-31
9,44,<=50K,AB9Z,,2026-01-01
10,45,<=50K
11,46,<=50K,AC1,k@x.org,soon
,47,<=50K,AC2,l@x.org,2026-01-01
"""
RULES = {
    "age": {"type": "int", "range": [17.0, 100.0], "nullable": False},
    "income": {"allowed": ["<=50K", ">50K"]},
    "code": {"pattern": "[A-Z]{2}[0-9]"},
    "mail": {"unique": True},
    "when": {"type": "date", "range": ["2026-01-01", None]},
}


def test_every_kind_of_dirt_is_counted_exactly(project) -> None:
    project.source |= {"key": ["id"]}
    project.types = {"age": "int", "when": "date"}
    project.file("data/1.csv", DIRTY)
    good, bad, results = project.hold(project.load(), RULES)
    # 7 stays: the row before it that has its mail is bad.
    assert good["id"].to_list() == [1, 7]
    assert good.columns == ["id", "age", "income", "code", "mail", "when"]
    assert {name: r.evidence.value for name, r in results.items()} == {
        "cells": 1,
        "key": 1,
        "duplicate": 1,
        "age.type": 1,
        "age.missing": 1,
        "age.range": 2,
        "income.allowed": 2,
        "code.pattern": 2,
        "mail.unique": 0,
        "when.type": 1,
        "when.range": 1,
    }
    assert bad.height == 11
    assert dict(bad.select("_line", "_reasons").rows()) == {
        3: ["age: outside 17 to 100"],
        4: ["age: not a whole number"],
        5: ["age: missing"],
        6: ["income: not one of `<=50K`, `>50K`"],
        7: ["code: does not match `[A-Z]{2}[0-9]`"],
        9: ["id: the key stands in a row before this one"],
        10: ["age: outside 17 to 100", "income: not one of `<=50K`, `>50K`", "when: below 2026-01-01"],
        11: ["code: does not match `[A-Z]{2}[0-9]`"],
        12: ["the line does not have one cell for each column"],
        13: ["when: not a date (YYYY-MM-DD)"],
        14: ["id: a row needs a key"],
    }
    assert bad.filter(pl.col("_line") == 4)["age"].item() == "abc"
    assert bad.filter(pl.col("_line") == 13)["when"].item() == "soon"
    example = results["age.range"].evidence.details["examples"]
    assert example == [
        {"value": "16", "file": "data/1.csv", "line": 3},
        {"value": "101", "file": "data/1.csv", "line": 10},
    ]
    assert results["cells"].evidence.details["examples"][0]["value"] == "10,45,<=50K"
    assert all(r.evidence.n == 13 and not r.check.blocking for r in results.values())
    assert results["age.range"].status == "failed"
    assert results["age.range"].reason == "2 of 13 rows set aside: age: outside 17 to 100"


def test_a_clean_table_passes_with_an_empty_quarantine_of_the_same_columns(project) -> None:
    project.source |= {"key": ["id"]}
    project.types = {"age": "int", "when": "date"}
    project.file("data/1.csv", "\n".join(DIRTY.splitlines()[:2]))
    clean = project.load()
    good, nothing, results = project.hold(clean, RULES, bad_rows="stop")
    assert good.height == 1
    assert {r.status for r in results.values()} == {"passed"}
    assert all(r.check.blocking for r in results.values())
    project.file("data/1.csv", DIRTY)
    _, bad, _ = project.hold(project.load(), RULES)
    assert nothing.schema == bad.schema
    assert not nothing.height


def test_bad_rows_stop_the_run_unless_set_aside(project) -> None:
    project.source |= {"key": ["id"]}
    project.types = {"age": "int", "when": "date"}
    project.file("data/1.csv", DIRTY)
    with pytest.raises(DataError) as caught:
        project.hold(project.load(), RULES, bad_rows="stop")
    problem = caught.value.problem
    assert (problem.code, caught.value.exit_code) == ("data-bad-rows", 2)
    assert "11 of 13 rows" in problem.message
    assert "age: outside 17 to 100 (2 rows, e.g. `16`, `101`)" in problem.message
    assert "bad_rows: quarantine" in problem.hint
    assert problem.where == "data/1.csv:12"


@pytest.mark.parametrize("bad_rows", ["stop", "quarantine"])
def test_all_rows_bad_always_stops(bad_rows: str) -> None:
    with pytest.raises(DataError) as caught:
        held(pl.DataFrame({"a": [1, 2]}), {"a": {"range": [5, None]}}, bad_rows=bad_rows)
    assert caught.value.code == "data-all-rows-bad"


def test_an_empty_table_stops() -> None:
    with pytest.raises(DataError) as caught:
        held(pl.DataFrame({"a": []}, schema={"a": pl.Int64}), {"a": {"range": [5, None]}})
    assert caught.value.code == "data-no-rows"


def test_a_table_without_rules_passes_whole() -> None:
    good, bad, counts = held(pl.DataFrame({"a": [1, None], "b": [[1], [2]]}), {}, bad_rows="stop")
    assert (good.height, bad.height, counts) == (2, 0, {})


@pytest.mark.parametrize(
    ("values", "rule", "bad"),
    [
        ([1, 5, None, 9], {"range": [2, 8]}, [0, 3]),
        ([1.0, float("nan"), None, 9.0], {"range": [0, 10]}, []),
        ([1.0, float("nan"), None, 9.0], {"nullable": False}, [1, 2]),
        ([1.0, 2.5, None], {"type": "int"}, [1]),
        (["1", "2.0", "2.5", "x", None], {"type": "int"}, [2, 3]),
        ([date(2026, 1, 1), date(2025, 1, 1)], {"range": ["2026-01-01", "2026-12-31"]}, [1]),
        ([1, 2, 3], {"allowed": [1, 2]}, [2]),
        ([True, False], {"allowed": [True]}, [1]),
        (["a", "ab", None], {"pattern": "a"}, [1]),
        (["a|b", "x"], {"pattern": "a|b|x"}, [0]),
        (["a\n"], {"pattern": "a|."}, [0]),
        (["a", "b", "a", None, None], {"unique": True}, [2]),
        (["yes", "No", "perhaps", None], {"type": "bool"}, [2]),
    ],
)
def test_rules(values: list[Any], rule: dict[str, Any], bad: list[int]) -> None:
    frame = pl.DataFrame({"v": values, "at": range(len(values))}, strict=False)
    if len(bad) == len(values):
        frame = pl.concat([frame, pl.DataFrame({"v": [None], "at": [-1]}, schema=frame.schema)])
    _, aside, _ = held(frame, {"v": rule})
    assert [int(at) for at in aside["at"]] == bad


def test_key_of_several_columns_without_a_load() -> None:
    frame = pl.DataFrame({"a": [1, 1, 1, None], "b": ["x", "y", "x", "x"], "v": [1, 2, 3, 4]})
    good, bad, counts = held(frame, {}, key=("a", "b"))
    assert (good["v"].to_list(), bad["v"].to_list()) == ([1, 2], ["3", "4"])
    assert counts == {"key": 1, "duplicate": 1}


BAD, GOOD = {"v": 99}, {"v": 5}


@pytest.mark.parametrize(
    ("rows", "stays"),
    [
        ([BAD, GOOD, GOOD], [1]),
        ([GOOD, BAD, GOOD], [0]),
        ([BAD, GOOD, BAD, GOOD], [1]),
        ([GOOD, GOOD, BAD], [0]),
    ],
)
def test_of_duplicates_the_first_good_row_stays(project, rows: list[dict[str, int]], stays: list[int]) -> None:
    # Another key beside, so that never every row is bad.
    frame = pl.DataFrame([{"id": 1, **row, "at": at} for at, row in enumerate(rows)] + [{"id": 2, "v": 5, "at": -1}])
    expected = [*stays, -1]
    rules = {"v": {"range": [0, 10]}}
    for more in ({"key": ("id",)}, {}):
        good, bad, _ = held(frame, rules if more else rules | {"id": {"unique": True}}, **more)
        assert good["at"].to_list() == expected
        assert good.height + bad.height == frame.height
    # And of a table that was loaded, where copies are told apart when they are loaded.
    project.source |= {"key": ["id"]}
    project.file("data/1.csv", frame.write_csv())
    good, bad, _ = project.hold(project.load(), rules)
    assert good["at"].to_list() == expected
    assert good.height + bad.height == frame.height


def test_a_row_set_aside_as_a_duplicate_takes_no_other_along() -> None:
    frame = pl.DataFrame({"id": [1, 1, 2, 3], "mail": ["a", "b", "b", "c"], "v": [5, 5, 5, 99]})
    good, bad, counts = held(frame, {"v": {"range": [0, 10]}, "mail": {"unique": True}}, key=("id",))
    assert good["id"].to_list() == [1, 2]
    assert counts == {"key": 0, "duplicate": 1, "v.range": 1, "mail.unique": 0}
    assert bad.height == 2


def test_an_older_file_does_not_come_back_when_the_newest_row_of_a_key_is_bad(project) -> None:
    project.source |= {"key": ["id"]}
    project.file("data/1.csv", "id,v\n1,5\n1,6\n2,5\n")
    first = project.load()
    project.file("data/2.csv", "id,v\n1,99\n")
    good, bad, results = project.hold(project.load(first), {"v": {"range": [0, 10]}})
    assert good["id"].to_list() == [2]
    assert sorted(bad["v"]) == ["6", "99"]
    assert results["duplicate"].evidence.value == 1


def test_too_many_missing_values_stop_the_load() -> None:
    frame = pl.DataFrame({"a": [1, None, None, 4]})
    _, _, counts = held(frame, {"a": {"max_missing": 0.5}})
    assert counts == {"a.max_missing": 0.5}
    with pytest.raises(DataError) as caught:
        held(frame, {"a": {"max_missing": 0.4}})
    assert caught.value.code == "data-too-many-missing"
    assert "50.0%" in caught.value.problem.message


@pytest.mark.parametrize(
    ("rules", "code", "hint"),
    [
        ({"agge": {"type": "int"}}, "data-column-missing", "did you mean `age`?"),
        ({"age": {"rnge": [1, 2]}}, "data-rule", "range"),
        ({"name": {"range": [1, 2]}}, "data-rule", "type"),
        ({"name": {"pattern": "(?<=x)y"}}, "data-rule", "look-around"),
        ({"age": {"allowed": ["many"]}}, "data-rule", "values of the column"),
        ({"day": {"range": ["spring", None]}}, "data-rule", "as the column has it"),
    ],
)
def test_rules_that_do_not_fit_are_named(rules: dict[str, Any], code: str, hint: str) -> None:
    frame = pl.DataFrame({"age": [1], "name": ["x"], "day": [date(2026, 1, 1)]})
    with pytest.raises(DataError) as caught:
        held(frame, rules)
    assert caught.value.code == code
    assert hint in caught.value.problem.hint


def test_results_do_not_depend_on_when_they_are_made(project) -> None:
    project.source |= {"key": ["id"]}
    project.types = {"age": "int", "when": "date"}
    project.file("data/1.csv", DIRTY)
    version = project.load()
    first, again = project.hold(version, RULES), project.hold(version, RULES)
    assert first[0].equals(again[0])
    assert first[1].equals(again[1])
    assert first[2] == again[2]


numbers = st.lists(st.one_of(st.none(), st.integers(-5, 15)), min_size=1, max_size=30)


@settings(max_examples=examples(60), deadline=None)
@given(values=numbers)
def test_accepted_and_quarantine_are_a_partition_that_the_rules_explain(values: list[int | None]) -> None:
    rules = {"v": {"range": [0, 10], "nullable": False, "unique": True}}
    frame = pl.DataFrame({"v": values, "at": range(len(values))}, schema={"v": pl.Int64, "at": pl.Int64})
    seen: set[int | None] = set()
    good = []
    for at, v in enumerate(values):
        if v is not None and 0 <= v <= 10 and v not in seen:
            good.append(at)
        seen.add(v)
    if not good:
        with pytest.raises(DataError, match="data-all-rows-bad"):
            held(frame, rules)
        return
    accepted, bad, counts = held(frame, rules)
    assert accepted["at"].to_list() == good
    assert sorted([*accepted["at"], *map(int, bad["at"])]) == list(range(len(values)))
    assert counts["v.missing"] == values.count(None)
    assert all(len(reasons) for reasons in bad["_reasons"])
