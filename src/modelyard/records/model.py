"""A model at one moment: what it takes, what it answers, what it was made from."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelyard._kit.digest import digest_of
from modelyard.records.base import Value

__all__ = ["Candidate", "Feature", "Gone", "ModelVersion", "Problem", "Signature", "Task"]

Task = Literal["binary", "multiclass", "regression"]


class Problem(Value, frozen=True, kw_only=True, tag="problem"):
    """What is to be learned.

    Attributes:
        task: `binary`, `multiclass` or `regression`.
        target: Name of the target column.
        classes: Labels as text, sorted, in the order of the columns of probability; empty for regression.
        positive: The class whose probability is the score of a binary problem; empty otherwise.
        metric: Name of the metric that selects the model.
    """

    task: Task
    target: str
    classes: tuple[str, ...] = ()
    positive: str = ""
    metric: str = ""


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One column that the model takes.

    Attributes:
        name: Column name.
        type: `number` (float32 in the model) or `category` (text in the model).
        source: Polars type the column had in training, e.g. `Int64`.
        nullable: Whether a missing value was seen in training or is handled by the pipeline.
        low: Smallest value seen in training (numbers).
        high: Largest value seen in training (numbers).
        categories: Values seen in training, sorted (categories).
    """

    name: str
    type: Literal["number", "category"]
    source: str
    nullable: bool = True
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and answers.

    The portable model has at most two inputs: `numeric` (float32, rows x numbers, in the order of the
    number features) and `categorical` (text, rows x categories, in the order of the category features).
    Its one output is `probabilities` (float32, rows x classes) or `prediction` (float32, rows x 1).
    """

    features: tuple[Feature, ...]
    problem: Problem

    @property
    def numbers(self) -> tuple[Feature, ...]:
        """The number features, in the order of the columns of the `numeric` input."""
        return tuple(f for f in self.features if f.type == "number")

    @property
    def categories(self) -> tuple[Feature, ...]:
        """The category features, in the order of the columns of the `categorical` input."""
        return tuple(f for f in self.features if f.type == "category")


class Candidate(Value, frozen=True, kw_only=True, tag="candidate"):
    """One family after its search: its best settings and its score on each fold.

    Attributes:
        family: Name of the family, e.g. `lightgbm`.
        params: Best settings found.
        metric: Metric of the scores.
        higher_is_better: Direction of the metric.
        scores: Score on each fold, the same folds for every candidate.
        trials: Trials finished.
        cost: Relative price of one prediction, from the fitted size; a tie goes to the cheaper.
        failed: Why the family is out; empty when it is in.
        history: One entry a trial: `{"params": ..., "score": ...}`.
        stopped_by_time: The search ended on its minutes rather than its trials, so a rerun may differ.
    """

    family: str
    params: dict[str, Any]
    metric: str
    higher_is_better: bool
    scores: tuple[float, ...]
    trials: int
    cost: float
    failed: str = ""
    history: tuple[dict[str, Any], ...] = ()
    stopped_by_time: bool = False

    @property
    def mean(self) -> float:
        """Mean score over the folds; not a number when the family is out."""
        return sum(self.scores) / len(self.scores) if self.scores else float("nan")


class ModelVersion(Value, frozen=True, kw_only=True, tag="model"):
    """One immutable version of a model.

    Attributes:
        name: Name of the model (the endpoint's name).
        digest: Digest of the model's own files; the card and the signature are not part of it.
        family: Family that won.
        params: Its settings.
        format: `onnx`, or where parity did not hold `lightgbm` (text) or `skops`.
        signature: What it takes and answers.
        trained_on: Digests of the tables it was trained on.
        environment: Digest of the environment it was trained in.
        address: Where the store keeps the sealed folder (digest of its manifest).
        released: Whether the folder holds a card, without which no alias may point at it.
    """

    name: str
    digest: str
    family: str
    params: dict[str, Any]
    format: Literal["onnx", "lightgbm", "skops"]
    signature: Signature
    trained_on: tuple[str, ...]
    environment: str
    address: str = ""
    released: bool = False

    @property
    def identity(self) -> str:
        """The digest of the model's files; releasing it with a card makes it another input."""
        return f"{self.digest}:{self.address}" if self.released else self.digest


class Gone(Value, frozen=True, kw_only=True, tag="gone"):
    """A model that the ledger names, and whose bundle is not in the store any more.

    A step that can do without the bundle says so by its annotation: `model: Bundle | Gone`.

    Attributes:
        model: The model.
        replaced: The model that is compared with it has taken its place as the champion already.
    """

    model: ModelVersion
    replaced: bool = False

    @property
    def identity(self) -> str:
        """Digest of which model it was, and of whether its place was taken; not of where its bundle lay."""
        return digest_of(["gone", self.model.digest, self.replaced])
