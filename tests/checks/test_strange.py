"""Many rows are looked at in another way than few, and the same is said of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from modelyard.checks.profile import profile
from modelyard.checks.strange import Strange


def test_many_rows_are_as_strange_as_each_of_them() -> None:
    rng = np.random.default_rng(5)
    columns: dict[str, Any] = {
        "bell": rng.normal(size=3000),
        "heavy": rng.lognormal(0, 3, 3000),
        "few": rng.integers(-2, 3, 3000),
        "one": np.zeros(3000),
        "none": np.full(3000, np.nan),
    }
    names = list(columns)
    signature: Any = SimpleNamespace(features=[SimpleNamespace(name=name, type="number") for name in names])
    strange = Strange(profile({n: v.tolist() for n, v in columns.items()}, signature), names, (), 0.99)
    usual = np.stack([columns[name] for name in names], axis=1)[:400]
    odd = rng.choice([0.0, -0.0, np.nan, 3e38, -3e38, 1e-40, 2.0, -2.0], (400, 5))
    rows = np.concatenate([usual, odd, rng.normal(0, 50, (400, 5))]).astype(np.float32)
    many = strange.measured(rows, None)
    few = [strange.measured(rows[at : at + 100], None) for at in range(0, len(rows), 100)]
    for at in (0, 1):
        assert np.array_equal(many[at], np.concatenate([one[at] for one in few]))
    assert 0 < strange.outliers(rows, None).sum() < len(rows)
