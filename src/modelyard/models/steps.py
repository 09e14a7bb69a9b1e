"""The steps of a model's life: train, select, fit, evaluate, importances, repeats, latency, package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import canonical
from modelyard._kit.errors import ModelError, Refused
from modelyard.inference import Bundle, BundleDraft
from modelyard.inference.bundle import own_files
from modelyard.models import select as selection
from modelyard.models.export import LIMIT
from modelyard.records import Candidate, Card, Evidence, Problem

if TYPE_CHECKING:
    import polars as pl

    Frame = pl.LazyFrame | pl.DataFrame

__all__ = ["evaluate", "fit", "importances", "latency", "package", "repeats", "select", "train"]


def train(
    *,
    table: Frame,
    problem: Problem,
    family: str,
    folds: int = 5,
    group: str | None = None,
    order: str | None = None,
    keys: Sequence[Sequence[str]] = (),
    trials: int = 20,
    seconds: float | None = None,
    drop: Sequence[str] = (),
    seed: int = 0,
) -> Candidate:
    """Search the settings of one family on the folds.

    Args:
        table: Training rows.
        problem: What is learned.
        family: Name of the family.
        folds: Folds of the cross-validation.
        group: Rows with one value of this column stay in one fold.
        order: Column of time, if folds follow it.
        keys: Key columns of each table; rows that any of them ties together stay in one fold, and none is a feature.
        trials: Settings tried; the first are the family's defaults.
        seconds: Begin no trial after this time.
        drop: Columns that are not features.
        seed: Seed of folds, search and estimators.

    Raises:
        ModelError: The rows cannot be learned from.
        NotFound: There is no such family.
    """
    from modelyard.models.dataset import dataset
    from modelyard.models.families import get
    from modelyard.models.folds import make_folds
    from modelyard.models.scoring import metric_of
    from modelyard.models.search import search

    chosen = get(family)
    if problem.task not in chosen.tasks:
        raise ModelError(
            "model-family-task",
            f"`{family}` cannot learn a {problem.task} problem",
            hint="take it out of `candidates`",
        )
    metric_of(problem)
    unseen = [*drop, *(c for c in (group, order) if c), *(c for key in keys for c in key)]
    data = dataset(table, problem, drop=unseen)
    divided = make_folds(data, count=folds, group=group, order=order, keys=keys, seed=seed)
    return search(chosen, data, divided, trials=trials, seconds=seconds, seed=seed)


def select(*, candidates: Sequence[Candidate], problem: Problem) -> tuple[Candidate, Evidence]:
    """Choose among the candidates: the best on the folds, unless a cheaper one is not significantly worse.

    Args:
        candidates: One a family.
        problem: What is learned.

    Raises:
        ModelError: No family could be trained.
    """
    return selection.select(candidates)


def fit(
    *,
    table: Frame,
    holdout: Frame,
    winner: Candidate,
    problem: Problem,
    name: str,
    drop: Sequence[str] = (),
    seed: int = 0,
    limit: float = LIMIT,
) -> tuple[BundleDraft, Evidence]:
    """Train the winner on all training rows and export it; equal inputs give equal bytes.

    Args:
        table: Training rows.
        holdout: Rows to compare the export on.
        winner: Family and settings.
        problem: What is learned.
        name: Name of the model.
        drop: Columns that are not features.
        seed: Seed of the estimator.
        limit: Largest difference of the export from the trained model.

    Raises:
        ModelError: The model cannot be trained or exported.
    """
    from modelyard.models.making import make

    made = make(table, holdout, winner, problem, name=name, drop=drop, seed=seed, limit=limit)
    return made.draft, made.parity


def evaluate(*, model: Bundle, table: Frame, keep: Sequence[str] = ()) -> pl.DataFrame:
    """Let the served model answer rows.

    Args:
        model: The model.
        table: The rows, with the target.
        keep: Columns to keep beside the answers, so that groups can be told apart.

    Raises:
        ModelError: A column is missing.
    """
    from modelyard.models.dataset import collected, encode_target
    from modelyard.models.making import predictions_of

    rows = collected(table)
    # Says which truth cannot be compared, before anything is measured on it.
    encode_target(rows, model.signature.problem)
    return predictions_of(model, rows, keep=keep)


def importances(*, model: Bundle, table: Frame, problem: Problem, repeats: int = 3, seed: int = 0) -> Evidence:
    """Measure how much the metric loses when a column is shuffled.

    Args:
        model: The model.
        table: The rows, with the target.
        problem: What was learned.
        repeats: How often each column is shuffled.
        seed: Seed of the shuffling.
    """
    from modelyard.models.measuring import permutation_importances

    return permutation_importances(model, table, problem, repeats=repeats, seed=seed)


def repeats(
    *,
    table: Frame,
    holdout: Frame,
    winner: Candidate,
    problem: Problem,
    name: str,
    runs: int = 3,
    drop: Sequence[str] = (),
    seed: int = 0,
    limit: float = LIMIT,
    model: Bundle | None = None,
) -> Evidence:
    """Make the model again, each time in a fresh process of the same environment, and note what came out.

    Args:
        table: Training rows.
        holdout: Rows that each model answers.
        winner: Family and settings.
        problem: What is learned.
        name: Name of the model.
        runs: How often.
        drop: Columns that are not features.
        seed: Seed of the estimator.
        limit: Largest difference of the export from the trained model, as for `fit`.
        model: The model that `fit` made; it is compared with what the repetitions make.

    Raises:
        ModelError: A process failed (`model-repeat-failed`).
    """
    from modelyard.models.repeating import repeat

    return repeat(
        table, holdout, winner, problem, name=name, runs=runs, drop=drop, seed=seed, limit=limit, fitted=model
    )


def latency(*, model: Bundle, table: Frame, rows: int = 1) -> Evidence:
    """Time predictions in process, from rows to labels, after a warm-up.

    Args:
        model: The model.
        table: Rows to predict.
        rows: Rows in one prediction.
    """
    from modelyard.models.measuring import time_predictions

    return time_predictions(model, table, rows=rows)


def package(*, model: Bundle, card: Card, verdict: Any = None) -> BundleDraft:
    """Put the card into the bundle, which makes it one that may answer.

    Args:
        model: The model.
        card: Its card.
        verdict: What the gate said; a failed gate has stopped the run before.

    Raises:
        Refused: The card has gaps (`card-incomplete`) or is another model's (`card-mismatch`).
    """
    if card.missing:
        raise Refused(
            "card-incomplete",
            f"the card of `{model.version.name}` is not complete: nobody has filled {', '.join(card.missing)}",
            hint="fill them in where they stand in modelyard.yaml (`purpose` and `owners` at the top, the others below "
            "`card`); a model without a whole card is not released",
        )
    if card.digest != model.version.digest:
        raise Refused(
            "card-mismatch",
            f"the card describes model `{card.digest[:12]}`, not `{model.version.digest[:12]}`",
            hint="make the card again from this model",
        )
    version = msgspec.structs.replace(model.version, released=True)
    own = {name: model.read(name) for name in own_files(model.names)}
    return BundleDraft.of(version, {**own, "card.json": canonical(card)})
