"""Search a family's settings: its defaults first, then what Optuna's seeded sampler proposes."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import ModelyardError
from modelyard.models.dataset import Dataset
from modelyard.models.families import Family, Setting
from modelyard.models.fitting import answer, fit_estimator, one_thread
from modelyard.models.folds import Fold
from modelyard.models.prepare import learn
from modelyard.models.scoring import metric_of, score
from modelyard.records import Candidate, Problem

if TYPE_CHECKING:
    import numpy as np
    import optuna

    Array = np.ndarray[Any, Any]

__all__ = ["search"]


@dataclass(frozen=True, slots=True)
class _Ready:
    """One fold prepared for a family; settings change the estimator, never the preparation."""

    train: Array
    target: Array
    valid: Array
    truth: Array


@dataclass(slots=True)
class _Best:
    value: float = float("nan")
    scores: tuple[float, ...] = ()
    params: dict[str, Any] = field(default_factory=dict)
    cost: float = 0.0


def search(
    family: Family,
    data: Dataset,
    folds: Sequence[Fold],
    *,
    trials: int = 20,
    seconds: float | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Candidate:
    """Return the family with the best settings found.

    Args:
        family: The family.
        data: The training rows.
        folds: Their division, the same for every family.
        trials: Settings tried; the first are the family's defaults.
        seconds: Begin no trial after this time; the defaults are always tried.
        seed: Seed of the sampler and of the estimators.
        clock: Source of the time.
    """
    problem = data.problem
    metric = metric_of(problem)
    began = clock()
    try:
        ready = _prepare(family, data, folds)
    except ModelyardError as error:
        return _out(family, problem, error.problem.message)
    except _misfits() as error:
        return _out(family, problem, _said(error))
    sign = 1.0 if metric.higher_is_better else -1.0
    best = _Best()
    history: list[dict[str, Any]] = []
    study = _study(family, seed) if trials > 1 else None
    space = family.space(problem.task, len(data))
    tried: set[str] = set()
    stopped = False
    failure = ""
    for number in range(trials):
        if number and seconds is not None and clock() - began > seconds:
            stopped = True
            break
        trial, params = _propose(study, space, family.defaults(problem.task, len(data)) if number == 0 else None)
        if repr(params) in tried:
            # Settings that are whole numbers come again; what they score is known.
            _tell(study, trial, None)
            continue
        tried.add(repr(params))
        try:
            light = family.lighter(params) if trials > 1 else params
            scores, cost = _scores(family, light, ready, problem, seed, best.scores)
        except _misfits() as error:
            failure = failure or _said(error)
            history.append({"params": params, "score": None, "folds": 0})
            _tell(study, trial, None)
            continue
        whole = len(scores) == len(ready)
        # Folds differ more than settings do: a trial that was cut is placed by how far it was behind the best one.
        mean = sum(scores) / len(scores) if whole else best.value - sign * _behind(scores, best.scores, sign)
        history.append({"params": params, "score": mean if mean == mean else None, "folds": len(scores)})
        _tell(study, trial, sign * mean)
        if whole and mean == mean and not sign * mean <= sign * best.value:
            best = _Best(mean, scores, params, cost)
    if best.scores and trials > 1 and family.lighter(best.params) != best.params:
        try:
            scores, cost = _scores(family, best.params, ready, problem, seed, ())
        except _misfits() as error:
            return _out(family, problem, _said(error), tuple(history))
        best = _Best(sum(scores) / len(scores), scores, best.params, cost)
    if not best.scores:
        why = failure or f"{metric.name} is undefined on the folds"
        return _out(family, problem, why, tuple(history))
    return Candidate(
        family=family.name,
        params=best.params,
        metric=metric.name,
        higher_is_better=bool(metric.higher_is_better),
        scores=best.scores,
        trials=len(history),
        cost=best.cost,
        history=tuple(history),
        stopped_by_time=stopped,
    )


def _misfits() -> tuple[type[Exception], ...]:
    """What a library raises when it cannot learn from these rows with these settings; a mistake of ours is another."""
    # LightGBM's own is none of the usual; who has not loaded the library cannot meet it.
    lightgbm = sys.modules.get("lightgbm.basic")
    return (ValueError, ArithmeticError, RuntimeError, *([lightgbm.LightGBMError] if lightgbm else []))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _out(family: Family, problem: Problem, why: str, history: tuple[dict[str, Any], ...] = ()) -> Candidate:
    return Candidate(
        family=family.name,
        params={},
        metric=problem.metric,
        higher_is_better=bool(metric_of(problem).higher_is_better),
        scores=(),
        trials=len(history),
        cost=float(family.rank),
        failed=why,
        history=history,
    )


def _prepare(family: Family, data: Dataset, folds: Sequence[Fold]) -> list[_Ready]:
    ready = []
    for fold in folds:
        train, valid = ({name: value[rows] for name, value in data.feeds.items()} for rows in (fold.train, fold.valid))
        preparation = learn(train, family.style)
        matrices = preparation.transform(train), preparation.transform(valid)
        ready.append(_Ready(matrices[0], data.target[fold.train], matrices[1], data.target[fold.valid]))
    return ready


def _scores(
    family: Family,
    params: dict[str, Any],
    ready: Sequence[_Ready],
    problem: Problem,
    seed: int,
    best: Sequence[float],
) -> tuple[tuple[float, ...], float]:
    """Return the score on each fold and the mean price; a trial behind the best on the folds so far goes no further."""
    metric = metric_of(problem)
    sign = 1.0 if metric.higher_is_better else -1.0
    scores: list[float] = []
    costs: list[float] = []
    for fold in ready:
        estimator = fit_estimator(family, params, fold.train, fold.target, problem, seed)
        with one_thread():
            scores.append(score(metric, fold.truth, answer(estimator, fold.valid, problem), problem))
        costs.append(family.cost(estimator, fold.train.shape[1]))
        if best and _behind(scores, best, sign) > 0:
            break
    return tuple(scores), sum(costs) / len(costs)


def _behind(scores: Sequence[float], best: Sequence[float], sign: float) -> float:
    """How much worse a trial is than the best one, on the folds it was scored on."""
    return sign * (sum(best[: len(scores)]) - sum(scores)) / len(scores)


def _study(family: Family, seed: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # Two families of one seed should not try the same corners; crc32 is the same in every process, hash() is not.
    sampler = optuna.samplers.TPESampler(seed=(seed + zlib.crc32(family.name.encode())) % 2**32, n_startup_trials=6)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _propose(
    study: optuna.Study | None, space: Sequence[Setting], defaults: dict[str, Any] | None
) -> tuple[Any, dict[str, Any]]:
    if study is None:
        return None, defaults or {}
    if defaults is not None:
        study.enqueue_trial(defaults)
    trial = study.ask()
    params: dict[str, Any] = {}
    for s in space:
        if s.whole:
            params[s.name] = trial.suggest_int(s.name, int(s.low), int(s.high), log=s.log)
        else:
            params[s.name] = trial.suggest_float(s.name, s.low, s.high, log=s.log)
    return trial, params


def _tell(study: optuna.Study | None, trial: Any, value: float | None) -> None:
    """Tell the sampler what came out; from what has no score it learns nothing."""
    if study is None:
        return
    from optuna.trial import TrialState

    if value is None or value != value:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, value)
