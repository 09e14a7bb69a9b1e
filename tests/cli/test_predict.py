"""`modelyard predict` reads CSV as the table is declared: a value means what it meant in training."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from modelyard._kit.errors import DataError, NotFound, UserError
from modelyard.cli.main import main
from modelyard.cli.predict import _opened, kept
from modelyard.records import Feature, Problem, Signature

SIGNATURE = Signature(
    features=(
        Feature(name="age", type="number", source="Int64"),
        Feature(name="job", type="category", source="String", categories=("cook", "smith")),
        Feature(name="zip", type="category", source="String"),
        Feature(name="owner", type="number", source="Boolean"),
    ),
    problem=Problem(task="binary", target="pays", classes=("no", "yes"), positive="yes", metric="roc_auc"),
)
HEAD = "project: p\nmodel: {target: pays}\n"
ODD = (
    HEAD
    + """data:
  people:
    from: people.csv
    delimiter: "; "
    null_values: "?"
    comment: "#"
"""
)
BARE = (
    HEAD
    + """data:
  people: {from: people.csv, columns: [age, job, zip, owner, pays], null_values: ["?"]}
"""
)

Read = Callable[..., pl.DataFrame]


def read_all(args: argparse.Namespace) -> pl.DataFrame:
    with _opened(args, SIGNATURE, None) as rows:
        return pl.concat(rows.read(0, 1000))


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def made(rows: str, declared: str = "", *, table: str = "", name: str = "new.csv") -> pl.DataFrame:
        if declared:
            Path("modelyard.yaml").write_text(declared)
        Path(name).write_text(rows)
        return read_all(argparse.Namespace(rows=name, file="modelyard.yaml", table=table))

    return made


def test_missing_as_declared_is_missing(read: Read) -> None:
    rows = read("# of today\nid; age; job; zip; owner\n007; 39; ?; 01234; yes\n8; ?; cook; ?; false\n", ODD)
    assert rows.rows() == [("007", 39, None, "01234", True), ("8", None, "cook", None, False)]


def test_without_a_declaration_the_usual_form_is_read(read: Read) -> None:
    rows = read("age,job,zip,owner,when\n1,?,01,true,2026-01-02\n2.5,cook,7,false,\n")
    assert rows["job"].to_list() == ["?", "cook"]
    assert rows["zip"].to_list() == ["01", "7"]
    assert rows["age"].to_list() == [1.0, 2.5]
    assert str(rows["when"].dtype) == "Date"


@pytest.mark.parametrize(
    "written",
    [
        "39,cook,01234,true,yes\n?,?,7,false,no\n",
        "39,cook,01234,true\n?,?,7,false\n",  # nobody knows the target yet
        "zip,age,owner,job\n01234,39,true,cook\n7,?,false,?\n",
    ],
)
def test_declared_names_stand_in_for_a_header_or_give_way_to_one(read: Read, written: str) -> None:
    rows = read(written, BARE).select("age", "job", "zip", "owner").rows()
    assert rows == [(39, "cook", "01234", True), (None, None, "7", False)]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("age; job; zip; owner\n1; a; b; true\nn/a; a; b; true\n", ":3: `age` is `n/a`"),
        ("age; job; zip; owner\n1; a; b; maybe\n", "`owner` is `maybe`"),
        ("age; job; zip; owner\n1; a; b; true; more\n", ":2: the line .* has not 4 cells"),
    ],
)
def test_a_value_that_was_bad_in_training_is_refused(read: Read, written: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(written, ODD)
    assert caught.value.code == "predict-unreadable"
    assert caught.value.problem.where.startswith("new.csv:")


def test_wrong_delimiter_is_named(read: Read) -> None:
    with pytest.raises(DataError, match="has one column"):
        read("age;job\n1;cook\n", BARE.replace(", columns: [age, job, zip, owner, pays]", ""))
    with pytest.raises(DataError, match="names 5"):
        read("1,2\n", BARE)


def test_of_several_tables_one_is_named(read: Read) -> None:
    two = ODD + "  more: {from: more.csv, key: age}\n" + "features: f.py:build\n"
    written = "age; job; zip; owner\n?; a; b; true\n"
    with pytest.raises(UserError, match="--table people") as caught:
        read(written, two)
    assert caught.value.code == "table-unclear"
    assert read(written, table="people")["age"].to_list() == [None]
    with pytest.raises(NotFound, match="did you mean `people`"):
        read(written, table="peeple")


def test_rows_come_on_standard_input_too(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    read("age; job; zip; owner\n1; a; b; true\n", ODD)
    raw = io.TextIOWrapper(io.BytesIO(b"age; job; zip; owner\n?; smith; 02; no\n"))
    monkeypatch.setattr(sys, "stdin", raw)
    arguments = argparse.Namespace(rows="-", file="modelyard.yaml", table="")
    assert read_all(arguments).rows() == [(None, "smith", "02", False)]


def test_a_system_that_pins_no_process_to_cores_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert main(["predict", "new.csv"]) == 2
    assert "error[project-not-found]" in capsys.readouterr().err


@pytest.mark.parametrize("guards", ["", "deploy: {guards: {unseen: reject}}\n"])
def test_who_declares_guards_is_told_that_a_batch_has_none(
    read: Read, capsys: pytest.CaptureFixture[str], guards: str
) -> None:
    assert read("age,job,zip,owner\n1,pilot,a,true\n", BARE + guards)["job"].to_list() == ["pilot"]
    assert ("note: `deploy.guards` are those of the server" in capsys.readouterr().err) == bool(guards)


@pytest.mark.parametrize("output", [".", "./", "/", "..", "../", "../.."])
@pytest.mark.parametrize("answers", [False, True])
def test_an_output_without_a_name_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: str, *, answers: bool
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    if answers:
        for folder in (inside, inside.parent, tmp_path):
            (folder / "manifest.json").write_text("{}")
    monkeypatch.chdir(inside)
    assert main(["predict", "new.csv", "-o", output, "--json"]) == 2
    said = capsys.readouterr()
    assert "error[predict-output]" in said.err
    assert [p["code"] for p in json.loads(said.out)["problems"]] == ["predict-output"]


def test_parts_that_are_kept_are_found_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = tmp_path / "disk" / ".real.csv.scoring"
    parts.mkdir(parents=True)
    Path("out.csv").symlink_to("disk/real.csv")
    args = argparse.Namespace(output="out.csv", line=["modelyard", "predict", "new.csv", "-o", "out.csv"])
    assert kept(args) == ""
    (parts / "part-00000-2.csv").write_text("")
    assert f"`{parts}`" in kept(args)
