"""Make a model: train the winner on all training rows, export it, and put the bundle together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import canonical, digest_of
from modelyard._kit.errors import ModelError
from modelyard.inference import Bundle, BundleDraft, picked
from modelyard.inference.decode import labels_of
from modelyard.inference.encode import as_text
from modelyard.models.dataset import Dataset, columns_of, dataset
from modelyard.models.export import LIMIT, export
from modelyard.models.facts import environment_facts
from modelyard.models.families import get
from modelyard.models.fitting import fit
from modelyard.records import Candidate, Evidence, ModelVersion, Problem, Signature

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from modelyard.models.dataset import Frame

    Array = np.ndarray[Any, Any]

__all__ = ["Made", "answers", "feeds_of", "make", "predictions_of"]


@dataclass(frozen=True, slots=True)
class Made:
    """A model that was just made.

    Attributes:
        draft: Its bundle, not sealed yet.
        parity: How far it is from the trained model.
        train: The rows it learned from.
        holdout: The rows it was compared on.
    """

    draft: BundleDraft
    parity: Evidence
    train: Dataset
    holdout: Dataset


def make(
    table: Frame,
    holdout: Frame,
    winner: Candidate,
    problem: Problem,
    *,
    name: str,
    drop: Collection[str] = (),
    seed: int = 0,
    limit: float = LIMIT,
    profiled: bool = True,
) -> Made:
    """Make a model.

    Args:
        table: Training rows.
        holdout: Rows to compare the export on, and whose predictions monitoring starts from.
        winner: Family and settings.
        problem: What is learned.
        name: Name of the model.
        drop: Columns that are not features.
        seed: Seed of the estimator.
        limit: Largest difference of the export from the trained model.
        profiled: Add the profile for monitoring.

    Raises:
        ModelError: The rows cannot be learned from, or the model cannot be exported.
    """
    train = dataset(table, problem, drop=drop)
    held = dataset(holdout, problem, signature=train.signature)
    missing = sorted(set(range(len(problem.classes))) - set(train.target.tolist())) if problem.classes else []
    if missing:
        raise ModelError(
            "model-class-missing",
            f"class `{problem.classes[missing[0]]}` has no training row",
            where=problem.target,
            hint="take a larger share for training, or join rare classes in your features",
        )
    family = get(winner.family)
    fitted = fit(family, winner.params, train.feeds, train.target, problem, seed)
    exported = export(fitted, held.feeds, limit=limit)
    environment = environment_facts()
    version = ModelVersion(
        name=name,
        digest="",
        family=family.name,
        params=winner.params,
        format=exported.format,
        signature=train.signature,
        trained_on=(),
        environment=digest_of(environment),
    )
    recipe = {
        "family": family.name,
        "params": winner.params,
        "seed": seed,
        "drop": sorted(drop),
        "rows": len(train),
        "features": train.digest,
        "preparation": fitted.preparation.about(train.signature),
    }
    files = {
        **exported.files,
        "environment.json": canonical(environment),
        "recipe.json": canonical(recipe),
    }
    if problem.classes:
        source = str(train.frame.schema[problem.target])
        files["labels.json"] = canonical(labels_of(problem.classes, source))
    draft = BundleDraft.of(version, files)
    if profiled:
        from modelyard.checks.profile import profile
        from modelyard.checks.usual import usual

        # Columns as they were in training; answers to rows it has not learned from, since on its own rows a model is
        # surer than it will ever be again.
        bundle, names = draft.bundle(), [f.name for f in train.signature.features]
        columns = columns_of(train.frame, names, train.signature)
        seen = profile(columns, train.signature, bundle.predictor().predict(held.feeds))
        seen["usual"] = usual(seen, train.signature, [held.feeds, train.feeds])
        draft = BundleDraft.of(version, {**files, "profile.json": canonical(seen)})
    return Made(draft, exported.parity, train, held)


def feeds_of(table: pl.DataFrame, signature: Signature) -> Any:
    """Return what a model of this signature takes, from a table."""
    from modelyard.inference import Encoder

    return Encoder(signature)(columns_of(table, [f.name for f in signature.features], signature))


def answers(bundle: Bundle, table: pl.DataFrame) -> Array:
    """Return what the served model answers to the rows of a table."""
    return bundle.predictor().predict(feeds_of(table, bundle.signature))


def predictions_of(bundle: Bundle, table: pl.DataFrame, *, keep: Collection[str] = ()) -> pl.DataFrame:
    """Return a table of predictions: truth, prediction, probability of each class, and the columns to keep.

    Raises:
        ModelError: A column is missing, or one to keep is called like one of ours (`model-column-reserved`).
    """
    import polars as pl

    from modelyard.checks.predictions import PREDICTION, PROBABILITY, TRUTH

    problem = bundle.signature.problem
    output = answers(bundle, table)
    columns: dict[str, Any] = {}
    truth = table[problem.target] if problem.target in table.columns else None
    if problem.task == "regression":
        if truth is not None:
            columns[TRUTH] = truth.cast(pl.Float64)
        columns[PREDICTION] = pl.Series(output[:, 0], dtype=pl.Float32)
    else:
        if truth is not None:
            columns[TRUTH] = pl.Series([as_text(value) for value in truth.to_list()], dtype=pl.String)
        best = picked(output, problem).tolist()
        columns[PREDICTION] = pl.Series([problem.classes[at] for at in best], dtype=pl.String)
        for at, name in enumerate(problem.classes):
            columns[f"{PROBABILITY}{name}"] = pl.Series(output[:, at], dtype=pl.Float32)
    for name in keep:
        if name in columns:
            raise ModelError(
                "model-column-reserved",
                f"column `{name}` cannot be kept beside the predictions, which have a column of that name",
                where=name,
                hint="call it otherwise in your features",
            )
        if name not in table.columns:
            raise ModelError(
                "model-column-missing",
                f"the test rows have no column `{name}` to keep",
                where=name,
                hint=f"they have {', '.join(table.columns[:8])}; a factor of the card must be kept by your features",
            )
        columns[name] = table[name]
    return pl.DataFrame(columns)
