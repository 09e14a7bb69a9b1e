"""The plan of a declaration: what each step is told."""

from __future__ import annotations

from pathlib import Path

import modelyard
from modelyard.pipeline.compose import compose

TWO_TABLES = """
project: visits
features: features.py:build
data:
  customers: {from: customers.csv, key: customer}
  visits: {from: visits.csv, key: [visit, day]}
  days: {from: days.csv, key: [day, visit]}
  notes: {from: notes.csv}
model: {target: y, candidates: [linear]}
"""


def test_the_key_of_each_table_holds_for_itself(tmp_path: Path) -> None:
    for name in ("customers.csv", "visits.csv", "days.csv", "notes.csv", "features.py"):
        (tmp_path / name).write_text("def build(tables): ...\n")
    (tmp_path / "modelyard.yaml").write_text(TWO_TABLES)
    steps = {step.name: step for step in compose(modelyard.load(tmp_path)).steps}
    for name in ("split", "train.linear"):
        assert steps[name].params["keys"] == [["customer"], ["day", "visit"]]
