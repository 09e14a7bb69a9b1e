"""Of rows the same is said alone and among others, and at a glance nothing is missed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.kernels import kernels

from modelyard.checks.profile import profile
from modelyard.checks.strange import Strange

__all__ = ["kernels"]
pytestmark = pytest.mark.usefixtures("kernels")
RNG = np.random.default_rng(5)
COLUMNS: dict[str, Any] = {
    "bell": RNG.normal(size=3000),
    "heavy": RNG.lognormal(0, 3, 3000),
    "few": RNG.integers(-2, 3, 3000),
    "one": np.zeros(3000),
    "none": np.full(3000, np.nan),
}
NAMES = list(COLUMNS)
USUAL = np.stack([COLUMNS[name] for name in NAMES], axis=1)[:400].astype(np.float32)
ODD = RNG.choice([0.0, -0.0, np.nan, 3e38, -3e38, 1e-40, 2.0, -2.0], (400, 5)).astype(np.float32)
ROWS = np.concatenate([USUAL, ODD, RNG.normal(0, 50, (400, 5)).astype(np.float32)])


def made(score: float) -> Strange:
    features = [SimpleNamespace(name=name, type="number") for name in NAMES]
    features.append(SimpleNamespace(name="text", type="category"))
    texts = {"text": ["a"] * 2000 + ["b"] * 999 + ["rare"]}
    signature: Any = SimpleNamespace(features=features)
    return Strange(profile({**{n: v.tolist() for n, v in COLUMNS.items()}, **texts}, signature), NAMES, ["text"], score)


def texts(value: str) -> Any:
    return np.full((len(ROWS), 1), value, object)


def test_many_rows_are_as_strange_as_each_of_them() -> None:
    strange = made(0.99)
    given = texts("a")
    many = strange.measured(ROWS, given)
    few = [strange.measured(ROWS[at : at + 100], given[:100]) for at in range(0, len(ROWS), 100)]
    for at in (0, 1):
        assert np.array_equal(many[at], np.concatenate([one[at] for one in few]))
    assert 0 < strange.outliers(ROWS, given).sum() < len(ROWS)


@pytest.mark.parametrize("score", [0.5, 0.9, 0.99, 0.999999])
@pytest.mark.parametrize("text", ["a", "rare", "never seen"])
def test_a_glance_lets_no_outlier_pass(score: float, text: str) -> None:
    strange = made(score)
    given = texts(text)
    outliers = strange.outliers(ROWS, given)
    harmless = np.array([strange.harmless(ROWS[at : at + 1], given[:1]) for at in range(len(ROWS))])
    assert not (harmless & outliers).any()
    assert strange.harmless(ROWS, given) == harmless.all()


def test_a_glance_is_enough_for_nearly_every_usual_row() -> None:
    rng = np.random.default_rng(1)
    columns = {f"c{at}": rng.normal(size=5000).tolist() for at in range(12)}
    signature: Any = SimpleNamespace(features=[SimpleNamespace(name=name, type="number") for name in columns])
    strange = Strange(profile(columns, signature), list(columns), (), 0.999)
    rows = rng.normal(size=(2000, 12)).astype(np.float32)
    outliers = strange.outliers(rows, None)
    harmless = np.array([strange.harmless(row[None], None) for row in rows])
    assert not (harmless & outliers).any()
    assert harmless.mean() > 0.97
