from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modelyard.data import sources, steps
from modelyard.records import CheckResult, TableVersion, plain
from modelyard.store import LocalStore, open_store
from modelyard.store.base import Appended


class Ctx:
    """What the runner gives to a probe."""

    def __init__(self, root: Path, store: LocalStore, inputs: dict[str, Any] | None = None) -> None:
        self.root, self.store, self.inputs = root, store, inputs or {}


class Project:
    """A project's folder with a real store, driven step by step as the runner does."""

    def __init__(self, root: Path, store: LocalStore) -> None:
        self.root, self.store = root, store
        self.source: dict[str, Any] = {"from": ["data/*"]}
        self.types: dict[str, str] = {}
        self.runs = 0

    def file(self, name: str, content: str | bytes | pl.DataFrame, *, age: float = 60.0) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        then = time.time() - age
        os.utime(path, (then, then))
        return path

    def ctx(self, **inputs: Any) -> Ctx:
        return Ctx(self.root, self.store, {name: plain(value) for name, value in inputs.items()})

    def probe(self) -> dict[str, Any]:
        return sources.probe(self.ctx(), source=self.source)

    def read(self, previous: TableVersion | None = None) -> Appended:
        return steps.load(source=self.source, types=self.types, state=self.probe(), previous=previous)

    def load(self, previous: TableVersion | None = None) -> TableVersion:
        self.runs += 1
        return self.store.tables.append("load.rows.table", self.read(previous), key=f"run {self.runs}")

    def rows(self, version: TableVersion, *, raw: bool = False) -> pl.DataFrame:
        return self.store.tables.read(version, raw=raw).collect()

    def hold(
        self, version: TableVersion, rules: dict[str, Any] | None = None, *, bad_rows: str = "quarantine"
    ) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, CheckResult]]:
        good, bad, results = steps.contract(
            table=self.store.tables.read(version),
            name="rows",
            rules=rules or {},
            key=self.source.get("key") or [],
            cursor=self.source.get("cursor"),
            bad_rows=bad_rows,
        )
        return good.collect(), bad, {r.check.name.removeprefix("contract.rows."): r for r in results}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with open_store(tmp_path) as store:
        yield Project(tmp_path, store)
