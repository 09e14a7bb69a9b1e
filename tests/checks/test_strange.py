"""Of rows the same is said alone and among others, and at a glance nothing is missed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.kernels import kernels

from modelyard._kit.errors import ModelError
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


def test_a_glance_lets_none_pass_that_rounding_puts_above_the_limit() -> None:
    """The values of one row are not added up in the order of those of many."""
    rng = np.random.default_rng(3)
    columns = {f"c{at}": rng.normal(size=3000).tolist() for at in range(40)}
    signature: Any = SimpleNamespace(features=[SimpleNamespace(name=name, type="number") for name in columns])
    seen = profile(columns, signature)
    for row in rng.normal(0, 2, (100, 40)).astype(np.float32):
        (total,), (one,) = Strange(seen, list(columns), (), 0.5).measured(row[None], None)
        below = float(np.nextafter(total, 0))
        strange = Strange(
            {**seen, "usual": {"outlier": {"share": [0.5], "sum": [below], "one": [float(one)]}}},
            list(columns),
            (),
            0.5,
        )
        assert strange.outliers(row[None], None)
        assert not strange.harmless(row[None], None)


@pytest.mark.parametrize(
    "change",
    [{"knots": [0, 2, 1, 3]}, {"knots": [0, 1, 2, np.inf]}, {"below": [1, 2, 3]}, {"below": [1, 2, 3, 4, 5]}],
    ids=str,
)
def test_a_damaged_profile_is_refused(change: dict[str, Any]) -> None:
    entry = {"type": "number", "n": 9, "knots": [0, 1, 2, 3], "below": [1, 2, 3, 4]}
    Strange({"features": {"a": entry, "b": entry}}, ["a", "b"], (), 0.5)
    with pytest.raises(ModelError) as raised:
        Strange({"features": {"a": {**entry, **change}, "b": entry}}, ["a", "b"], (), 0.5)
    assert raised.value.code == "model-unreadable"


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
