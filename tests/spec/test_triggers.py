"""What cannot work in a trigger is refused with its line, the near names and what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard._kit.errors import Problem
from modelyard.spec import load
from modelyard.spec.sections.triggers import split_pattern, sqlite_file, watched_column

Judge = Callable[[str], list[Problem]]


def write(small: str, trigger: str) -> str:
    return f"{small}triggers:\n  t: {trigger}\n"


RIGHT = [
    '{files: "data/*.csv", on: [created, updated], settle: 2s, each: false, owner: ann}',
    '{files: ["data/*.csv", "data/**/x*.parquet"], existing: true, follow: true, every: 5s, debounce: 1m}',
    "{files: data, on: deleted}",
    '{blobs: "s3://bucket/prefix/", every: 1m, each: true}',
    '{blobs: "abfss://c@account.dfs.core.windows.net/in/*.csv", paused: true}',
    '{sql: "sqlite:///orders.db", table: orders, watch: max(updated_at), every: 30s}',
    '{sql: "sqlite:///orders.db", query: "SELECT * FROM orders", watch: [rows, hash], settle: 10s}',
    '{sql: "postgresql://reader@db.example.org/shop", table: shop.orders, password: ORDERS_PASSWORD}',
    "{webhook: {secret: HOOK_SECRET}, debounce: 1m}",
    '{webhook: {secret: [HOOK_SECRET, "env:HOOK_SECRET_OLD", "file:/run/secrets/hook"], style: github}}',
    "{after: ./other, on: failure}",
    "{drift: true, debounce: 1d}",
]


@pytest.mark.parametrize("trigger", RIGHT)
def test_right_ones(problems: Judge, project: Path, small: str, trigger: str) -> None:
    sqlite3.connect(project / "orders.db").close()
    (project / "orders.db").touch()
    (project / "other").mkdir()
    assert problems(write(small, trigger)) == []


WRONG = [
    ("{}", "spec-contradiction", "watches nothing", "`files`"),
    ("{drift: false}", "spec-contradiction", "watches nothing", "`drift`"),
    ("{files: data/*.csv, drift: true}", "spec-contradiction", '"files" and "drift"', "two triggers"),
    ("{files: dta/*.csv}", "spec-missing-file", 'no folder "dta"', "`data`"),
    ("{files: data/in/deep/*.csv}", "spec-missing-file", 'no folder "data/in/deep"', "mkdir -p data/in/deep"),
    ("{files: [data/*.csv, none/*.csv]}", "spec-missing-file", 'no folder "none"', "mkdir"),
    ("{files: ../x/*.csv}", "spec-path-outside", "leads out", "whole path"),
    ("{files: ..}", "spec-path-outside", "leads out", "whole path"),
    ("{files: data/*/../x}", "spec-contradiction", "climbs", "without `..`"),
    ('{files: "s3://b/x"}', "spec-contradiction", "is no path", "blobs"),
    ('{files: ""}', "spec-contradiction", "empty", "data/in"),
    ("{files: data/*.csv, on: [success]}", "spec-contradiction", '"success" does not happen', "`deleted`"),
    ("{files: data/*.csv, on: [creatd]}", "spec-bad-value", "creatd", "`created`"),
    ("{files: data/*.csv, table: x}", "spec-contradiction", '"table" says nothing', "`sql`" and "take `table` out"),
    ("{files: data/*.csv, settle: 2}", "spec-bad-duration", "settle", "2s"),
    ("{files: data/*.csv, setle: 2s}", "spec-unknown-field", "setle", "`settle`"),
    ('{blobs: "ftp://x/y"}', "spec-contradiction", '"ftp://" is not known', "s3://"),
    ('{blobs: "bucket/x"}', "spec-contradiction", "no address", "s3://"),
    ('{blobs: "s3://me:hunter2@bucket/x"}', "spec-secret", "secret", "AWS_SECRET_ACCESS_KEY"),
    ('{sql: "sqlite:///none.db", table: t}', "spec-missing-file", "no database", "make it"),
    ('{sql: "sqlite://host/x", table: t}', "spec-contradiction", "names no file", "three slashes"),
    ('{sql: "mysql://h/d", table: t}', "spec-contradiction", "can be watched", "postgresql://"),
    ('{sql: "postgresql://me:hunter2@h/d", table: t}', "spec-secret", "secret", "password: VARIABLE"),
    ('{sql: "postgresql://h/d"}', "spec-contradiction", "neither a table nor a query", "one of them"),
    ('{sql: "postgresql://h/d", table: t, query: SELECT 1}', "spec-contradiction", "both", "one of them"),
    ('{sql: "postgresql://h/d", query: DROP TABLE x}', "spec-contradiction", "one SELECT", "SELECT"),
    ('{sql: "postgresql://h/d", table: a..b}', "spec-contradiction", "name of a table", "orders"),
    ('{sql: "postgresql://h/d", table: t, watch: min(x)}', "spec-contradiction", "cannot be watched", "`rows`"),
    ('{sql: "postgresql://h/d", table: t, each: true}', "spec-contradiction", '"each" says nothing', "each"),
    ('{sql: "postgresql://h/d", table: t, password: "p w"}', "spec-secret", "no name of a variable", "file:PATH"),
    ("{webhook: {}}", "spec-missing-field", "secret", "HOOK_SECRET"),
    ("{webhook: {secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}", "spec-secret", "no name", "HOOK_SECRET"),
    ("{webhook: {secret: 4f9a0c77be2144f9a0c77be214}}", "spec-secret", "no name", "HOOK_SECRET"),
    ("{webhook: {secret: HOOK_SECRET}, every: 1m}", "spec-contradiction", '"every" says nothing', "every"),
    ("{after: ../nowhere-at-all}", "spec-missing-file", "no project", ""),
    ("{after: ./}", "spec-contradiction", "itself for ever", "out"),
    ("{after: ./other}", "spec-contradiction", 'by way of "other"', "out"),
    ("{after: ./other, on: created}", "spec-contradiction", "does not happen", "`success`"),
]


@pytest.mark.parametrize(("trigger", "code", "message", "hint"), WRONG)
def test_wrong_ones(
    problems: Judge, project: Path, small: str, trigger: str, code: str, message: str, hint: str
) -> None:
    (project / "other").mkdir()
    (project / "other" / "modelyard.yaml").write_text("triggers: {x: {after: ..}}")
    found = problems(write(small, trigger))
    match = [p for p in found if p.code == code and message in p.message and hint in p.hint]
    assert match, found
    assert match[0].where == "modelyard.yaml:5"
    assert all("hunter2" not in str(p) and "MfKQ9" not in str(p) and "4f9a0c" not in str(p) for p in found)


def test_a_project_may_be_named_where_both_are_in_one_postgres(
    problems: Judge, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODELYARD_STORE", raising=False)
    assert [p.code for p in problems(write(small, "{after: churn}"))] == ["spec-missing-file"]
    assert problems(write(f"{small}store: postgresql://db.example.org/team\n", "{after: churn}")) == []


def test_what_is_outside_is_looked_at_only_when_asked(project: Path, small: str) -> None:
    (project / "modelyard.yaml").write_text(write(small, "{files: none/*.csv}"))
    assert load(files=False).triggers["t"].files == ("none/*.csv",)


def test_the_name_of_the_schedule_is_taken(problems: Judge, small: str) -> None:
    (problem,) = problems(f"{small}triggers:\n  schedule: {{files: data/*}}\n")
    assert "another name" in problem.hint


@pytest.mark.parametrize("second", ["HOOK_SECRET", '[OTHER_SECRET, "env:HOOK_SECRET"]'])
def test_two_webhooks_have_two_secrets(problems: Judge, small: str, second: str) -> None:
    head = f"{small}triggers:\n  a: {{webhook: {{secret: [HOOK_SECRET, OLD_SECRET]}}}}\n"
    (problem,) = problems(f"{head}  b: {{webhook: {{secret: {second}}}}}\n")
    assert (problem.code, problem.where) == ("spec-contradiction", "modelyard.yaml:6")
    assert '"a" and "b" have one secret' in problem.message
    assert problems(f"{head}  b: {{webhook: {{secret: OTHER_SECRET}}}}\n") == []


def test_drift_needs_a_model(problems: Judge, project: Path) -> None:
    (project / "steps.py").write_text("def f():\n    return 1\n")
    found = problems("project: p\nsteps: {a: {function: steps.py:f}}\ntriggers: {t: {drift: true}}\n")
    assert ["no endpoint" in p.message for p in found] == [True]


def test_patterns_addresses_and_columns(tmp_path: Path) -> None:
    assert split_pattern("a/b/*/c.csv") == ("a/b", ("*", "c.csv"))
    assert split_pattern("/srv/in/") == ("/srv/in", ("*",))
    assert split_pattern(".") == (".", ("*",))
    assert split_pattern("/") == ("/", ("*",))
    assert split_pattern("/*.csv") == ("/", ("*.csv",))
    assert sqlite_file("sqlite:///a/b.db", tmp_path) == tmp_path / "a" / "b.db"
    assert sqlite_file("sqlite:////srv/b.db", tmp_path) == Path("/srv/b.db")
    assert watched_column("max( updated_at )") == "updated_at"
    assert watched_column("min(x)") == ""
