"""A small whole project on real data, for stories that run everything."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.once import once
from tests.typed import typed

SPEC = """\
project: tumours
purpose: Point the pathologist to the samples that should be looked at first.
owners: [{team: pathology}]
data:
  samples:
    from: data/*.csv
    key: id
    bad_rows: quarantine
    contract:
      mean_radius: {type: float, range: [0, 100]}
      diagnosis: {allowed: [benign, malignant], nullable: false}
model:
  target: diagnosis
  positive: malignant
  metric: roc_auc
  split: {test: 30%, seed: 7}
  candidates: [logistic, lightgbm]
  search: {trials: 1, folds: 3}
checks:
  - roc_auc: {at_least: 0.80, with_confidence: 95%}
  - beats: {margin: -0.05}
card:
  intended_use: {for: [Order samples], users: [Pathologists], not_for: [Diagnosis without a pathologist]}
  factors: [grain]
  ethics: A wrong low score delays a reading.
  caveats: One hospital.
  training_data: Fine-needle aspirates.
  evaluation_data: A random part of the same.
monitor: {drift: {psi: 0.2}}
"""
# The same with one candidate, which is soon trained.
LOGISTIC = SPEC.replace("candidates: [logistic, lightgbm]", "candidates: [logistic]")
COLUMNS = ["mean_radius", "mean_texture", "mean_smoothness", "worst_area", "worst_concavity"]


def samples(start: int, stop: int) -> list[dict[str, str]]:
    """Return real samples as text, with an id and a grain each."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(n).replace(" ", "_") for n in data.feature_names]
    rows = []
    for i in range(start, stop):
        values = dict(zip(names, data.data[i], strict=True))
        row = {"id": str(1000 + i), **{c: repr(float(values[c])) for c in COLUMNS}}
        row["grain"] = "fine" if values["mean_texture"] < 20 else "coarse"
        row["diagnosis"] = str(data.target_names[data.target[i]])
        rows.append(row)
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Write rows with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the project: `make_project(spec=..., rows=...)`."""

    def make(spec: str = SPEC, rows: list[dict[str, str]] | None = None, name: str = "project") -> Path:
        folder = tmp_path / name
        write_csv(folder / "data" / "one.csv", samples(0, 300) if rows is None else rows)
        (folder / "modelyard.yaml").write_text(spec)
        return folder

    return make


@pytest.fixture(scope="session")
def _ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        write_csv(folder / "data" / "one.csv", samples(0, 300))
        (folder / "modelyard.yaml").write_text(LOGISTIC)
        done = typed(folder, "run")
        assert done.returncode == 0, done.stderr

    return once(tmp_path_factory, "tumours", make)


@pytest.fixture
def ran(_ran: Path, tmp_path: Path) -> Path:
    """The project `LOGISTIC`, which has run and has a champion."""
    return Path(shutil.copytree(_ran, tmp_path / "project"))
