"""A small project whose runs are recorded one after the other, each with one thing changed."""

from __future__ import annotations

import contextlib
import textwrap
from pathlib import Path

import modelyard
from modelyard import Run
from modelyard._kit.errors import ModelyardError
from modelyard.store import Store

SPEC = """\
project: shop
data:
  orders: {from: data/*.csv, key: id}
features: features.py:build
steps:
  score:
    function: quality.py:score
    inputs: {table: features}
    params: {least: 0.5, weight: 1.0}
"""
FEATURES = """\
import narwhals as nw

import helpers


def unrelated(rows):
    return rows


def build(tables):
    orders = tables["orders"]
    return helpers.marked(orders).select("id", "price", "good")
"""
HELPERS = """\
import narwhals as nw

LIMIT = 10


def marked(rows):
    return rows.with_columns(good=nw.col("price") < LIMIT)
"""
QUALITY = """\
import polars as pl

from modelyard.records import Check, CheckResult, Evidence, Limit


def score(table, least, weight):
    rows = table.lazy().collect()
    value = rows["good"].mean() * weight
    print(f"{rows.height} rows, {value:.3f} good")
    return CheckResult(
        check=Check(name="share", type="share", params={"least": least}, blocking=False),
        status="passed" if value >= least else "failed",
        reason=f"{value:.3f} are good",
        limit=Limit(op="at_least", value=least),
        evidence=Evidence(measure="share_good", value=value, n=rows.height),
    )
"""


class History:
    """The project in a folder; `run` records a run as it stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.write("modelyard.yaml", SPEC)
        self.write("features.py", FEATURES)
        self.write("helpers.py", HELPERS)
        self.write("quality.py", QUALITY)
        self.orders("one", range(8))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1, (name, old)
        path.write_text(text.replace(old, new))

    def orders(self, name: str, prices: range, first: int = 0) -> None:
        rows = [f"{first + i},{price}" for i, price in enumerate(prices)]
        self.write(f"data/{name}.csv", "\n".join(["id,price", *rows, ""]))

    def run(self) -> Run:
        """Run the project; a run that fails is a run."""
        with contextlib.suppress(ModelyardError):
            modelyard.run(self.folder / "modelyard.yaml")
        with self.store() as store:
            found = store.ledger.run(store.ledger.runs(limit=1)[0].id)
        assert found is not None
        return found

    def harmless(self) -> Run:
        """Change something that is of no account, and run."""
        self.count += 1
        match self.count % 3:
            case 0:
                self.edit("features.py", "    return rows\n", f"    number = {self.count}\n    return rows\n")
            case 1:
                self.orders(f"more-{self.count}", range(5), first=1000 * self.count)
            case 2:
                spec = (self.folder / "modelyard.yaml").read_text()
                weight = spec.partition("weight: ")[2].partition("}")[0]
                self.edit("modelyard.yaml", f"weight: {weight}", f"weight: {1.0 + self.count / 1000}")
        return self.run()

    def store(self) -> Store:
        return modelyard.open_project(self.folder)
