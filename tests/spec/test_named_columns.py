"""Columns that the file names are held against those of the data, where the data's first lines tell them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from modelyard._kit.errors import Problem

Judge = Callable[[str], list[Problem]]
DATA = "project: p\ndata:\n  t: {from: data/a.csv}\n"
NAMES = {
    "drop": ("  drop:\n    - age\n    - agge\n", 8, '"model.drop" names "agge"', "did you mean `age`?"),
    "drop nothing like it": ("  drop: [zzz]\n", 6, '"zzz", which is no column of "t"', "there is: id, age"),
    "time": ("  split: {by: time, column: updated}\n", 6, '"model.split.column" names "updated"', "`updated_at`"),
    "group": ("  split: {by: group, column: sexx}\n", 6, '"sexx"', "did you mean `sex`?"),
    "gap": ("checks:\n  - gap: {metric: accuracy, across: [sexx], at_most: 1}\n", 7, '"across" names "sexx"', "`sex`"),
    "factors": ("card: {factors: [sex, rase]}\n", 6, '"card.factors" names "rase"', "`race`"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_is_no_column_is_refused_before_a_run(case: str, problems: Judge) -> None:
    text, line, words, hint = NAMES[case]
    (found,) = problems(f"{DATA}model:\n  target: y\n{text}")
    assert (found.code, found.where) == ("data-column-missing", f"modelyard.yaml:{line}")
    assert words in found.message
    assert hint in found.hint


def test_columns_that_the_file_lists_need_no_look_at_the_data(problems: Judge) -> None:
    (found,) = problems(
        "project: p\ndata: {t: {from: data/a.csv, columns: [b, y]}}\nmodel: {target: y, drop: [a, b]}\n"
    )
    assert (found.code, found.where) == ("data-column-missing", "modelyard.yaml:3")


def test_any_of_the_files_may_have_the_column(problems: Judge, project: Path) -> None:
    (project / "data" / "b.csv").write_text("id,later\n1,2\n")
    assert problems("project: p\ndata: {t: {from: data/*.csv}}\nmodel: {target: y, drop: [age, later]}\n") == []


def test_parquet_and_other_delimiters_tell_their_columns_too(problems: Judge, project: Path) -> None:
    pl.DataFrame({"a": [1], "y": [2]}).write_parquet(project / "data" / "p.parquet")
    (project / "data" / "s.csv").write_text("a; y\n1; 2\n")
    for source in ("{from: data/p.parquet}", '{from: data/s.csv, delimiter: "; "}'):
        text = f"project: p\ndata: {{t: {source}}}\nmodel: {{target: y, drop: [DROP]}}\n"
        assert problems(text.replace("DROP", "a")) == []
        assert [p.code for p in problems(text.replace("DROP", "b"))] == ["data-column-missing"]


@pytest.mark.parametrize(
    "content", [b"", b"a;y\n1;2\n", b"a,a\n1,2\n", b"\xff\xfe\n"], ids=["empty", "one", "two", "bin"]
)
def test_what_is_wrong_with_a_file_is_left_to_the_run(problems: Judge, project: Path, content: bytes) -> None:
    (project / "data" / "a.csv").write_bytes(content)
    assert problems(DATA + "model: {target: y, drop: [zzz]}\n") == []


def test_a_function_may_make_columns_of_its_own(problems: Judge, project: Path) -> None:
    text = DATA + "features: features.py:build\nmodel: {target: y, drop: [made], split: {by: group, column: made}}\n"
    assert problems(text) == []


def test_a_step_that_feeds_the_table_in_its_place_may_make_columns(problems: Judge, project: Path) -> None:
    (project / "steps.py").write_text("def made(table):\n    return table\n")
    step = "steps:\n  made: {function: steps.py:made, inputs: {table: contract.t}, feeds: t}\n"
    assert problems(DATA + step + "model: {target: y, drop: [made]}\n") == []
