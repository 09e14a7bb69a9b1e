from __future__ import annotations

import codecs
import csv as stdcsv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.examples import examples

from modelyard._kit.errors import DataError
from modelyard.data import csvlines
from modelyard.data.base import Item, Options
from modelyard.data.readers import conform, open_file
from modelyard.data.types import infer


def read(path: Path, types: dict[str, str] | None = None, **options: object) -> pl.DataFrame:
    opened = open_file(path, Item(path.name, path.stat().st_size, ""), Options(**options))  # type: ignore[arg-type]
    kinds = types if types is not None else infer([opened], opened.columns)
    frame = conform(opened, kinds).collect()
    assert frame.height == opened.rows - len(opened.skip)
    return frame


def file(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        read(path, **options)
    return caught.value


def test_bad_values_are_kept_and_missing_ones_are_not_bad(tmp_path: Path) -> None:
    path = file(tmp_path, "n,x,b,d\n1,1.5,true,2026-01-02\n, ,,\nabc,1e3,maybe,02/01/2026\n39.0,nan,NO,\n39.5,7,1,\n")
    frame = read(path, {"n": "int", "x": "float", "b": "bool", "d": "date"})
    assert frame["n"].to_list() == [1, None, None, 39, None]
    assert frame["x"].to_list() == [1.5, None, 1000.0, None, 7.0]
    assert frame["b"].to_list() == [True, None, None, False, True]
    assert [d and d.isoformat() for d in frame["d"]] == ["2026-01-02", None, None, None, None]
    kept = frame["_raw"].str.json_decode(pl.Struct({"n": pl.String, "x": pl.String, "b": pl.String, "d": pl.String}))
    assert [r and {k: v for k, v in r.items() if v is not None} for r in kept.to_list()] == [
        None,
        None,
        {"n": "abc", "b": "maybe", "d": "02/01/2026"},
        None,
        {"n": "39.5"},
    ]
    assert frame["_line"].to_list() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-21", "2026-11-21T00:00:00+00:00"),
        ("2026-11-21 14:03", "2026-11-21T14:03:00+00:00"),
        ("2026-11-21T14:03:05", "2026-11-21T14:03:05+00:00"),
        ("2026-11-21 14:03:05.25", "2026-11-21T14:03:05.250000+00:00"),
        ("2026-11-21T14:03:05Z", "2026-11-21T14:03:05+00:00"),
        ("2026-11-21T14:03:05+02:00", "2026-11-21T12:03:05+00:00"),
        ("21.11.2026", None),
    ],
)
def test_times_are_utc(tmp_path: Path, text: str, utc: str | None) -> None:
    moment = read(file(tmp_path, f"t,u\n{text},1\n"), {"t": "datetime"})["t"].item()
    assert (moment and moment.isoformat()) == utc


def test_not_a_number_is_missing_even_where_nothing_else_is_wrong(tmp_path: Path) -> None:
    frame = read(file(tmp_path, "x,y\n1.5,1\nnan,2\nNaN,3\n"))
    assert frame["x"].to_list() == [1.5, None, None]
    assert frame["_raw"].null_count() == 3


def test_types_are_found_in_all_rows_and_codes_stay_text(tmp_path: Path) -> None:
    head = "i,late,f,b,d,t,zip,long,micro,none,mixed\n"
    row = "1,2,1.5,true,2026-01-01,2026-01-01 10:00,01234,12345678901234567890,1767225600000000,,1\n"
    last = "2, 2.5,3,False,2026-01-02,2026-01-02,99999,1,1,,x\n"
    frame = read(file(tmp_path, head + row * 2000 + last))
    found = {name: str(frame.schema[name]) for name in head.strip().split(",")}
    assert found == {
        "i": "Int64",
        "late": "Float64",
        "f": "Float64",
        "b": "Boolean",
        "d": "Date",
        "t": "Datetime(time_unit='us', time_zone='UTC')",
        "zip": "String",
        "long": "String",
        "micro": "Int64",
        "none": "String",
        "mixed": "String",
    }
    assert frame["_raw"].null_count() == frame.height


def test_byte_order_mark_line_ends_and_missing_last_line_end(tmp_path: Path) -> None:
    frame = read(file(tmp_path, codecs.BOM_UTF8 + b"a,b\r\n1,x\r\n\r\n2,\xc3\xa9"))
    assert frame.select("a", "b", "_line").rows() == [(1, "x", 2), (2, "é", 4)]


def test_spaces_around_cells_are_dropped_where_the_names_have_them(tmp_path: Path) -> None:
    path = file(tmp_path, "age, class, Y\n39, Private, <=50K\n50, ?, >50K\n")
    for delimiter in (", ", ","):
        frame = read(path, delimiter=delimiter, null_values=("?",))
        assert frame.select("age", "class", "Y").rows() == [(39, "Private", "<=50K"), (50, None, ">50K")]


def test_null_values_are_missing_for_every_type(tmp_path: Path) -> None:
    frame = read(file(tmp_path, "n,s\n?,?\n1,-\nNA,NA\n"), {"n": "int", "s": "text"}, null_values=("?", "-", "NA"))
    assert frame.select("n", "s").rows() == [(None, None), (1, None), (None, None)]
    assert frame["_raw"].null_count() == 3


def test_comments_blank_lines_and_long_rows_do_not_shift_line_numbers(tmp_path: Path) -> None:
    path = file(tmp_path, '# made today\n\na,b\n1,"x\ny"\n# note\n\n2,z\n3\n4,w\n')
    frame = read(path, comment="#")
    assert frame.select("a", "_line").rows() == [(1, 4), (2, 8), (3, 9), (4, 10)]
    assert frame["b"].to_list() == ["x\ny", "z", None, "w"]
    assert frame.filter(pl.col("_raw").is_not_null())["_raw"].to_list() == ['{"_line":"3"}']


def test_header_may_be_absent_or_be_the_same_as_the_names(tmp_path: Path) -> None:
    for content in ("ham\tHi\nspam\tWin\n", "label\ttext\nham\tHi\nspam\tWin\n"):
        frame = read(file(tmp_path, content, "sms.tsv"), columns=("label", "text"))
        assert frame.select("label", "text").rows() == [("ham", "Hi"), ("spam", "Win")]


def test_tabs_need_no_quoting(tmp_path: Path) -> None:
    frame = read(file(tmp_path, 'a\tb\n1\tHe said "hi" and\n2\t"left\n', "rows.tsv"))
    assert frame["b"].to_list() == ['He said "hi" and', '"left']


@pytest.mark.parametrize("first", ["", "1", "1,2,3,4,5"])
def test_the_first_row_is_not_the_measure_of_the_others(tmp_path: Path, first: str) -> None:
    frame = read(file(tmp_path, f"a,b,c\n{first}\n1,2,3\n4,5,6\n"), {"a": "int", "b": "int", "c": "int"})
    whole = frame.filter(pl.col("_raw").is_null())
    assert whole.select("a", "b", "c", "_line").rows() == [(1, 2, 3, 3), (4, 5, 6, 4)]
    assert frame.height == (3 if first else 2)


def test_one_column_file_has_missing_values_on_empty_lines(tmp_path: Path) -> None:
    assert read(file(tmp_path, "a\n1\n\n3\n"))["a"].to_list() == [1, None, 3]


@pytest.mark.parametrize(
    ("content", "code", "where", "said"),
    [
        (b"", "data-empty-file", "rows.csv", "is empty"),
        (b"\n\n \n", "data-empty-file", "rows.csv", "is empty"),
        (b"a,b\n1,x\n2,caf\xe9\n", "data-not-utf8", "rows.csv:3", "byte 0xe9 at line 3, byte 14 of the file"),
        (b"na\xefve,b\n1,x\n", "data-not-utf8", "rows.csv:1", "line 1, byte 3 "),
        ("a,b\n1,2\n".encode("utf-16"), "data-not-utf8", "rows.csv:1", "byte 0xff"),
        (b"a,a\n1,2\n", "data-header", "rows.csv:1", "two columns called `a`"),
        (b"a;b\n1;2\n", "data-header", "rows.csv:1", "has one column, `a;b`"),
        (b"_file,b\n1,2\n", "data-header", "rows.csv:1", "a column called `_file`"),
        (b"a,b\r1,2\r", "data-header", "rows.csv:1", "carriage returns"),
        (b'a,b\n1,x\n5" pipe,y\n', "data-quotes", "rows.csv:3", "line 3"),
        (b'a,b\n"x"y,2\n', "data-quotes", "rows.csv:2", "line 2"),
        (b'a,b\n1,"x\n2,y\n3,z\n', "data-quotes", "rows.csv:2", "line 2"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, content: bytes, code: str, where: str, said: str
) -> None:
    error = refused(file(tmp_path, content))
    assert (error.code, error.problem.where) == (code, where)
    assert said in error.problem.message
    assert error.problem.hint


def test_encoding_and_lines_are_found_beyond_the_first_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvlines, "_BLOCK", 64)
    rows = "".join(f"{i},text {i}\n" for i in range(100))
    frame = read(file(tmp_path, f'a,b\n{rows}100,"two\nlines"\n101\n102,x\n'))
    assert frame["_line"].to_list() == [*range(2, 103), 104, 105]
    error = refused(file(tmp_path, f"a,b\n{rows}".encode() + b"1,\xff\n"))
    assert error.problem.where == "rows.csv:102"


def test_columns_that_do_not_count_up_are_refused(tmp_path: Path) -> None:
    assert refused(file(tmp_path, "1,2,3\n"), columns=("a", "b")).code == "data-header"
    assert refused(file(tmp_path, "a,b\n"), delimiter="ab").code == "data-header"


def test_far_too_many_broken_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvlines, "_MOST_BROKEN", 3)
    error = refused(file(tmp_path, "a,b\n1,2\n" + "1,2,3\n" * 4))
    assert (error.code, error.problem.where) == ("data-ragged-lines", "rows.csv:3")


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.xlsx", b"PK", "save it as CSV"),
        ("a.csv.gz", b"\x1f\x8b", "unpack"),
        ("a.parquet", b"PAR1 cut", "write the file"),
    ],
)
def test_other_formats_are_refused_with_what_to_do(tmp_path: Path, name: str, content: bytes, hint: str) -> None:
    error = refused(file(tmp_path, content, name))
    assert error.code == "data-format"
    assert hint in error.problem.hint


def test_parquet_keeps_its_types_and_bad_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame(
        {"n": ["1", "x", None], "f": [1.0, 2.5, float("nan")], "c": ["a", "b", "a"]},
        schema_overrides={"c": pl.Categorical},
    ).write_parquet(path)
    frame = read(path, {"n": "int", "f": "int", "c": "text"})
    assert frame.select("n", "f", "c").rows() == [(1, 1, "a"), (None, None, "b"), (None, None, "a")]
    assert frame["_raw"].to_list() == [None, '{"n":"x","f":"2.5"}', None]
    assert frame["_line"].null_count() == 3


cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=6)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=8), block=st.sampled_from([16, 50, 1 << 20]))
def test_what_the_standard_library_writes_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[str, str, str]], block: int
) -> None:
    monkeypatch.setattr(csvlines, "_BLOCK", max(block, 16))
    text = io.StringIO()
    writer = stdcsv.writer(text, lineterminator="\n", quoting=stdcsv.QUOTE_ALL)
    writer.writerow(["a", "b", "c"])
    writer.writerows(rows)
    frame = read(file(tmp_path, text.getvalue()), {"a": "text", "b": "text", "c": "text"})
    assert frame.select("a", "b", "c").rows() == [tuple(v or None for v in row) for row in rows]
    lines, at = [], 2
    for row in rows:
        lines.append(at)
        at += 1 + sum(v.count("\n") for v in row)
    assert frame["_line"].to_list() == lines
