"""The `model` section: what is learned, how rows are split, which families compete and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from modelyard._kit.fields import Column, Label, OpenShare, Section, Texts
from modelyard.checks.metrics import METRICS

__all__ = ["FAMILIES", "GOALS", "Model", "Search", "Split"]

# Name in the file -> name of the family. `logistic` is what people call the linear family of a classification.
FAMILIES = {
    "linear": "linear",
    "logistic": "linear",
    "random_forest": "random_forest",
    "hist_gradient_boosting": "hist_gradient_boosting",
    "lightgbm": "lightgbm",
}

# Metrics that a model can be selected by: a rate of one kind of mistake alone is best where the model says nothing.
GOALS = [name for name in METRICS if not name.endswith("_rate")]


class Split(Section, frozen=True, kw_only=True):
    """How rows are divided into training and test."""

    by: Annotated[
        Literal["random", "time", "group"],
        Meta(
            description="How rows are divided: `random`, `time` (the newest by `column` are the test) or `group` (rows "
            "with one value of `column` stay on one side).",
            examples=["time"],
        ),
    ] = "random"
    test: Annotated[
        OpenShare,
        Meta(description="Share of the rows kept for the test.", examples=["20%"]),
    ] = 0.2
    column: Annotated[
        Column | None,
        Meta(
            description="Column that a split by `time` or `group` goes by; required there.", examples=["signed_up_at"]
        ),
    ] = None
    seed: Annotated[
        int,
        Meta(
            description="Seed of a random or group split. It is apart from the model's, so that another model is "
            "tested on the same rows.",
            examples=[7],
            ge=0,
        ),
    ] = 0


class Search(Section, frozen=True, kw_only=True):
    """How long settings are searched for."""

    trials: Annotated[
        int,
        Meta(description="Settings tried for each family; 1 takes its default settings.", examples=[40], ge=1),
    ] = 20
    minutes: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="Minutes after which the search of a family ends with what it has; a run that ends so may "
            "differ when repeated. Left out, there is no limit.",
            examples=[5],
        ),
    ] = None
    folds: Annotated[
        int,
        Meta(description="Folds of the cross-validation, the same for all families.", examples=[5], ge=2, le=20),
    ] = 5


class Model(Section, frozen=True, kw_only=True):
    """What is learned and who competes."""

    target: Annotated[Column, Meta(description="Column to predict.", examples=["income"])]
    task: Annotated[
        Literal["auto", "binary", "multiclass", "regression"],
        Meta(
            description="Kind of problem. `auto` decides by the target: two values, some values, or numbers; the run "
            "says which.",
            examples=["binary"],
        ),
    ] = "auto"
    positive: Annotated[
        Label | None,
        Meta(
            description="Value of the target whose probability is the score of a binary problem. Left out, it is the "
            "last of the two by name.",
            examples=[">50K"],
        ),
    ] = None
    metric: Annotated[
        Annotated[str, Meta(extra_json_schema={"enum": GOALS})] | None,
        Meta(
            description="Metric that selects the model. Left out, it is `roc_auc` for binary, `balanced_accuracy` for "
            "multiclass and `rmse` for regression.",
            examples=["roc_auc"],
        ),
    ] = None
    split: Annotated[
        Split,
        Meta(description="How rows are divided into training and test.", examples=[{"by": "random", "test": "20%"}]),
    ] = Split()
    candidates: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={"enum": list(FAMILIES)})], ...],
        Meta(
            description="Families that compete on the same folds; the best wins, and a tie goes to the cheaper. "
            "`logistic` is another name of `linear` in a classification. Left out, all compete.",
            examples=[["logistic", "lightgbm"]],
            min_length=1,
        ),
    ] = ("linear", "random_forest", "hist_gradient_boosting", "lightgbm")
    search: Annotated[
        Search, Meta(description="How long settings are searched for.", examples=[{"trials": 40, "minutes": 5}])
    ] = Search()
    drop: Annotated[
        Texts,
        Meta(
            description="Columns that the model does not see. They can still make groups for the card's factors and "
            "for gaps. Keys and the column of a split are never seen.",
            examples=[["sex", "race"]],
        ),
    ] = ()
    seed: Annotated[
        int,
        Meta(description="Seed of the folds, the search and the training.", examples=[7], ge=0),
    ] = 0

    @property
    def families(self) -> tuple[str, ...]:
        """The candidates by the names of their families, each once, in order."""
        return tuple(dict.fromkeys(FAMILIES[name] for name in self.candidates))
