"""A small right declaration, and a project folder to put it in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard._kit.errors import ModelyardError, Problem

RIGHT = """\
project: income
purpose: Decide which applicants a person should look at first.
owners: [{team: credit, contact: "mailto:credit@example.org"}]

data:
  applicants:
    from: data/*.csv
    key: id
    cursor: updated_at
    fresh_within: 2d
    contract:
      age: {type: int, range: [17, 100]}
      income: {allowed: ["<=50K", ">50K"]}
    bad_rows: quarantine

features: features.py:build

model:
  target: income
  metric: roc_auc
  split: {by: random, test: 20%}
  candidates: [logistic, random_forest, hist_gradient_boosting, lightgbm]
  search: {trials: 40, minutes: 5}

checks:
  - roc_auc: {at_least: 0.90, with_confidence: 95%}
  - beats: {champion: true, baseline: true}
  - gap: {metric: false_negative_rate, across: [sex, race], at_most: 0.10}
  - repeatable: {runs: 3}
  - latency: {p99: 5ms}

card:
  intended_use: {for: [a], users: [b], not_for: [c]}
  factors: [sex, race, age]
  ethics: Somebody may be harmed.

deploy:
  endpoint: income
  access: {roles: [analyst], per_minute: 600}

monitor: {drift: {psi: 0.2}}
"""

SMALL = """\
project: p
data: {t: {from: data/a.csv}}
model: {target: y}
"""

Judge = Callable[[str], list[Problem]]


@pytest.fixture
def right() -> str:
    """Every section filled, nothing wrong."""
    return RIGHT


@pytest.fixture
def small() -> str:
    """Three lines that are enough."""
    return SMALL


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder with one data file and a features file; it is also where we are."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text(
        "id,age,income,updated_at,y,a,sex,race,when\n1,20,>50K,2026-01-01,1,1,f,x,1\n"
    )
    (tmp_path / "features.py").write_text("def build(tables):\n    return tables['applicants']\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def problems(project: Path) -> Judge:
    """Write a declaration, load it, and return what was found wrong."""
    from modelyard.spec import load

    def judge(text: str) -> list[Problem]:
        (project / "modelyard.yaml").write_text(text)
        try:
            load()
        except ModelyardError as error:
            return list(error.problems)
        return []

    return judge
