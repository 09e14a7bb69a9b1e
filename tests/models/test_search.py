"""The search: defaults first, the same folds and the same answer every time, and an end by the clock that is said."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from modelyard._kit.errors import ModelError, NotFound
from modelyard.models import families
from modelyard.models.dataset import dataset
from modelyard.models.folds import make_folds
from modelyard.models.search import search
from modelyard.models.steps import select, train
from modelyard.records import Problem

Tables = Callable[..., pl.DataFrame]
Problems = Callable[..., Problem]


@pytest.mark.parametrize("family", ["linear", "lightgbm", "random_forest"])
def test_the_same_search_twice_is_the_same_candidate(family: str, table: Tables, problem: Problems) -> None:
    rows, learned = table("binary", rows=200), problem("binary")
    once, again = (train(table=rows.lazy(), problem=learned, family=family, folds=3, trials=3) for _ in range(2))
    assert once == again
    assert not once.failed
    assert len(once.scores) == 3
    assert once.trials == len(once.history) <= 3
    assert once.history[0]["params"] == families.get(family).defaults("binary", 200)
    assert once.cost > 0
    assert once.higher_is_better


def test_one_trial_takes_the_defaults(table: Tables, problem: Problems) -> None:
    rows, learned = table("regression", rows=120), problem("regression")
    found = train(table=rows, problem=learned, family="hist_gradient_boosting", folds=2, trials=1)
    assert found.params == families.get("hist_gradient_boosting").defaults("regression", 120)
    assert not found.higher_is_better
    assert found.history[0]["score"] == pytest.approx(found.mean)


def test_a_trial_that_is_behind_is_cut(table: Tables, problem: Problems) -> None:
    learned = problem("binary")
    data = dataset(table("binary"), learned)
    found = search(families.get("linear"), data, make_folds(data, count=4), trials=12)
    folds = [entry["folds"] for entry in found.history]
    assert folds[0] == 4
    assert min(folds) < 4
    # What was cut is placed behind the best one that was known then.
    assert max(e["score"] for e in found.history) == pytest.approx(found.mean)


def test_the_clock_ends_a_search_and_the_candidate_says_so(table: Tables, problem: Problems) -> None:
    learned = problem("binary")
    data = dataset(table("binary", rows=120), learned)
    ticks = count(step=4.0)
    found = search(
        families.get("linear"), data, make_folds(data, count=2), trials=50, seconds=10, clock=lambda: next(ticks)
    )
    assert found.stopped_by_time
    assert 1 <= found.trials < 5
    calm = search(families.get("linear"), data, make_folds(data, count=2), trials=2, seconds=1e6)
    assert not calm.stopped_by_time


def test_a_family_that_cannot_learn_is_out_and_says_why(problem: Problems) -> None:
    rows = pl.DataFrame({"name": [f"n{at}" for at in range(60)], "y": ["no", "yes"] * 30})
    found = train(table=rows, problem=problem("binary"), family="linear", folds=2, trials=2)
    assert "every category is seen too rarely" in found.failed
    assert found.scores == ()


def failing(name: str) -> Exception:
    from lightgbm.basic import LightGBMError

    return {
        "lightgbm": LightGBMError("Check failed: (num_leaves) > (1)"),
        "solver": np.linalg.LinAlgError("SVD did not converge"),
        "overflow": FloatingPointError("overflow encountered"),
        "threads": RuntimeError("no thread could be started"),
    }[name]


@pytest.mark.parametrize("name", ["lightgbm", "solver", "overflow", "threads"])
def test_what_a_library_raises_takes_the_family_out(
    name: str, table: Tables, problem: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = failing(name)
    fits = count()

    def fail(*_: object) -> None:
        next(fits)
        raise error

    monkeypatch.setattr("modelyard.models.search.fit_estimator", fail)
    found = train(table=table("binary", rows=60), problem=problem("binary"), family="lightgbm", folds=2, trials=2)
    assert found.failed == f"{type(error).__name__}: {error}"
    assert next(fits) == 2
    with pytest.raises(ModelError) as caught:
        select(
            candidates=[found, msgspec.structs.replace(found, family="linear", failed="no")], problem=problem("binary")
        )
    assert caught.value.code == "model-no-candidate"
    assert f"lightgbm: {type(error).__name__}: {error}; linear: no" in caught.value.problem.message


def test_a_family_that_fails_at_its_whole_settings_is_out(
    table: Tables, problem: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelyard.models import search as module

    real, whole = module.fit_estimator, families.get("random_forest").defaults("binary", 60)
    assert families.get("random_forest").lighter(whole) != whole

    def fit(family: Any, params: dict[str, Any], *rest: Any) -> Any:
        if params == family.lighter(params):
            return real(family, params, *rest)
        raise RuntimeError("out of threads")

    monkeypatch.setattr(module, "fit_estimator", fit)
    found = train(table=table("binary", rows=60), problem=problem("binary"), family="random_forest", folds=2, trials=2)
    assert found.failed == "RuntimeError: out of threads"
    assert len(found.history) == 2


def test_a_mistake_of_ours_is_no_reason_to_go_on(
    table: Tables, problem: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TypeError("a mistake")

    monkeypatch.setattr("modelyard.models.search.fit_estimator", fail)
    with pytest.raises(TypeError, match="a mistake"):
        train(table=table("binary", rows=60), problem=problem("binary"), family="linear", folds=2, trials=2)


def test_what_divides_the_rows_is_no_feature(table: Tables, problem: Problems) -> None:
    # The group gives the answer away; as a feature it would score 1.
    rows = table("binary").with_columns(pl.Series("hint", ["yes", "no"] * 150))
    rows = rows.with_columns(y=pl.col("hint"), who=pl.col("hint") + (pl.int_range(300) // 20).cast(pl.String))
    found = train(
        table=rows, problem=problem("binary"), family="lightgbm", folds=3, trials=1, group="who", drop=["hint"]
    )
    assert found.mean < 0.7


def test_settings_that_do_not_fit_are_said(table: Tables, problem: Problems) -> None:
    rows = table("binary")
    with pytest.raises(NotFound):
        train(table=rows, problem=problem("binary"), family="lightbgm", trials=1)
    with pytest.raises(ModelError) as caught:
        train(table=rows, problem=problem("binary", metric="rmse"), family="linear", trials=1)
    assert caught.value.code == "model-metric"
    with pytest.raises(ModelError) as caught:
        train(table=rows, problem=problem("binary", metric="selection_rate"), family="linear", trials=1)
    assert caught.value.code == "model-metric"
