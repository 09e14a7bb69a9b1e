"""The Adult census as a project with one model, and as rows: for what has to be measured on real data.

The data are read from `$MODELYARD_DATA`, or from `shared/data` beside the checkout.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from _bench import child, emit
from modelyard.checks.bootstrap import wilson_interval

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
TEXTS = (
    "workclass",
    "education",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native-country",
)
_SPEC = """\
project: income
purpose: Show what can be told of traffic.
owners: [{team: bench, contact: "mailto:bench@example.org"}]
data:
  applicants: {from: data/adult.data, delimiter: ", ", null_values: "?", bad_rows: quarantine}
model:
  target: Y
  positive: ">50K"
  metric: roc_auc
  split: {by: random, test: 20%, seed: 1}
  candidates: [lightgbm]
  search: {trials: 1, folds: 2}
checks:
  - roc_auc: {at_least: 0.9}
card:
  intended_use: {for: [Measuring], users: [Developers], not_for: [People]}
  factors: [sex]
  ethics: It decides nothing about anybody.
  caveats: Incomes are those of 1994.
  training_data: Records of the 1994 census of the United States (Becker and Kohavi, 1996; CC BY 4.0).
  evaluation_data: A random fifth of the same records.
deploy:
  endpoint: income
"""


def folder() -> Path | None:
    """Return the folder of the data; none, and say so, where they are not there."""
    found = Path(os.environ.get("MODELYARD_DATA", ROOT.parent / "shared" / "data")) / "adult"
    if (found / "adult.data").is_file() and (found / "adult.test").is_file():
        return found
    print(f"skipped: no Adult data at {found}; set MODELYARD_DATA", file=sys.stderr)
    return None


def project(data: Path, root: Path) -> Path:
    """Make a model of the data in a project, as a user does, and return the folder of its bundle."""
    from modelyard.deploy.aliases import bundle_folder, pointed
    from modelyard.store import open_store

    (root / "data").mkdir()
    shutil.copy(data / "adult.data", root / "data")
    (root / "modelyard.yaml").write_text(_SPEC)
    if child(["-m", "modelyard", "run"], cwd=str(root)).code:
        raise SystemExit("the model could not be made")
    store = open_store(root)
    made = bundle_folder(store, pointed(store, "income"))
    store.close()
    return made


class People:
    """Rows of the census.

    Args:
        numbers: rows x numbers, in the order of `NUMBERS`.
        texts: rows x texts, in the order of `TEXTS`; empty where a value is missing.
    """

    def __init__(self, numbers: Any, texts: Any) -> None:
        self.numbers = numbers
        self.texts = texts

    def __len__(self) -> int:
        """How many there are."""
        return len(self.numbers)

    def __getitem__(self, some: Any) -> People:
        """Return some of them."""
        return People(self.numbers[some], self.texts[some])

    def __add__(self, more: People) -> People:
        """Return these and others behind them."""
        return People(np.vstack([self.numbers, more.numbers]), np.vstack([self.texts, more.texts]))

    def rows(self) -> list[dict[str, Any]]:
        """Return them as they are sent."""
        found = []
        for numbers, texts in zip(self.numbers.tolist(), self.texts.tolist(), strict=True):
            row: dict[str, Any] = {name: int(value) for name, value in zip(NUMBERS, numbers, strict=True)}
            found.append(row | {name: text or None for name, text in zip(TEXTS, texts, strict=True)})
        return found

    def columns(self) -> dict[str, Any]:
        """Return them as columns."""
        found: dict[str, Any] = {name: self.numbers[:, at] for at, name in enumerate(NUMBERS)}
        return found | {name: [t or None for t in self.texts[:, at].tolist()] for at, name in enumerate(TEXTS)}

    def of(self, signature: Any) -> tuple[Any, Any]:
        """Return numbers and texts in the order of a model's columns."""
        numbers = [NUMBERS.index(f.name) for f in signature.numbers]
        return self.numbers[:, numbers], self.texts[:, [TEXTS.index(f.name) for f in signature.categories]]

    def alike(self, rng: Any, least: int) -> People:
        """Return those who share an occupation, a schooling or ten years of age: what one caller may be about."""
        while True:
            name = ("occupation", "education", "age")[int(rng.integers(3))]
            if name == "age":
                low = rng.integers(17, 60)
                age = self.numbers[:, 0]
                some = (age >= low) & (age < low + 10)
            else:
                column = self.texts[:, TEXTS.index(name)]
                some = column == rng.choice(np.unique(column))
            if some.sum() >= least:
                return self[some]


def people(path: Path) -> People:
    """Read one of the two files."""
    lines = path.read_text().splitlines()
    names = lines[0].split(", ")
    rows = [line.split(", ") for line in lines[1:] if line.count(", ") == len(names) - 1]
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    numbers = np.array([columns[name] for name in NUMBERS], np.float64).T
    texts = np.array([["" if text == "?" else text for text in columns[name]] for name in TEXTS], object).T
    return People(numbers, texts)


def share(name: str, part: int, whole: int, limit: float | None = None, text: str = "") -> None:
    """Print a share with its interval."""
    found = wilson_interval(part, whole)
    said = f"{found.low:.4f} to {found.high:.4f} (Wilson, 95 %), {part} of {whole}"
    emit(name, part / whole, "", limit, f"{said}; {text}" if text else said)
