"""The `checks` section: claims about the model, each a mapping of one kind to its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from modelyard._kit.fields import Duration, OpenShare, Section, Texts
from modelyard.checks.metrics import METRICS
from modelyard.checks.parity import LIMIT
from modelyard.records import Check

__all__ = [
    "CLAIMS",
    "Beats",
    "CheckEntry",
    "Gap",
    "Latency",
    "MetricLimit",
    "Parity",
    "Repeatable",
    "given",
    "to_check",
]


_Blocking = Annotated[
    bool,
    Meta(
        description="Whether a failure stops the run, so that the champion does not move; `false` only reports it.",
        examples=[False],
    ),
]
_Confidence = Annotated[
    OpenShare | None,
    Meta(
        description="Confidence of the interval whose worse bound must hold the limit. Left out, the measured "
        "value itself must.",
        examples=["95%"],
    ),
]


class MetricLimit(Section, frozen=True, kw_only=True):
    """A metric on the test rows against a limit."""

    at_least: Annotated[float | None, Meta(description="Smallest value that passes.", examples=[0.9])] = None
    at_most: Annotated[float | None, Meta(description="Largest value that passes.", examples=[0.1])] = None
    with_confidence: _Confidence = None
    blocking: _Blocking = True


class Beats(Section, frozen=True, kw_only=True):
    """Better than what there is, on the same test rows."""

    champion: Annotated[
        bool,
        Meta(
            description="Whether the model must not be worse than the one that answers now; skipped while there is "
            "none. To compare with the baseline alone, write `champion: false`.",
            examples=[True],
        ),
    ] = True
    baseline: Annotated[
        bool,
        Meta(
            description="Whether the model must be better than always answering the most frequent class or the mean.",
            examples=[True],
        ),
    ] = True
    with_confidence: Annotated[
        OpenShare | None,
        Meta(
            description="Confidence of the interval of the difference whose lower bound must reach `margin`. Left out, "
            "the measured difference itself must.",
            examples=["95%"],
        ),
    ] = None
    margin: Annotated[
        float,
        Meta(
            description="How much better the model must be, in units of its metric. A negative margin allows that much "
            "loss against the champion.",
            examples=[-0.01],
        ),
    ] = 0.0
    blocking: _Blocking = True


class Gap(Section, frozen=True, kw_only=True):
    """The largest difference of a metric between groups."""

    metric: Annotated[
        str,
        Meta(
            description="Metric that is compared between the groups.",
            examples=["false_negative_rate"],
            extra_json_schema={"enum": list(METRICS)},
        ),
    ]
    across: Annotated[
        Texts,
        Meta(
            description="Columns whose values are the groups; with several, each column and each pair of columns is "
            "looked at. A number is cut into ranges.",
            examples=[["sex", "race"]],
            min_length=1,
        ),
    ]
    at_most: Annotated[
        float, Meta(description="Largest difference between two groups that passes.", examples=[0.1], ge=0)
    ]
    with_confidence: Annotated[
        OpenShare | None,
        Meta(
            description="Confidence of the interval of the difference whose upper bound must hold the limit. Left out, "
            "the measured difference itself must.",
            examples=["95%"],
        ),
    ] = None
    at_least_rows: Annotated[
        int,
        Meta(
            description="Rows a group must have to be compared; smaller groups are listed as insufficient evidence.",
            examples=[50],
            ge=1,
        ),
    ] = 30
    blocking: _Blocking = True


class Repeatable(Section, frozen=True, kw_only=True):
    """The same training again gives the same model."""

    runs: Annotated[
        int, Meta(description="Trainings in identical environments whose results are compared.", examples=[3], ge=2)
    ] = 3
    blocking: _Blocking = True


class Parity(Section, frozen=True, kw_only=True):
    """The portable model answers as the trained one does."""

    at_most: Annotated[
        float,
        Meta(
            description="Largest difference of an answer between the trained model and its portable form, over real "
            "rows: of a probability, or of a prediction relative to the spread of the predictions.",
            examples=[0.0001],
            ge=0,
        ),
    ] = LIMIT
    blocking: _Blocking = True


class Latency(Section, frozen=True, kw_only=True):
    """How long an answer takes, in process."""

    p99: Annotated[
        Duration, Meta(description="Time within which 99 of 100 predictions must be answered.", examples=["5ms"])
    ]
    rows: Annotated[int, Meta(description="Rows in one prediction.", examples=[1], ge=1, le=1_000_000)] = 1
    blocking: _Blocking = True


def _limit_of(name: str) -> tuple[type[Section], str, dict[str, Any]]:
    metric = METRICS[name]
    side = "at_most" if metric.higher_is_better is False else "at_least"
    return MetricLimit, f"{metric.about} Measured on the test rows, against a limit.", {side: 0.9}


# Kind in the file -> its settings, what it claims, and an example. A metric's own name is a kind.
CLAIMS: dict[str, tuple[type[Section], str, dict[str, Any]]] = {name: _limit_of(name) for name in METRICS} | {
    "beats": (
        Beats,
        "Not worse than the champion, and better than a baseline, on the same test rows.",
        {"champion": True, "baseline": True},
    ),
    "gap": (
        Gap,
        "The largest difference of a metric between groups of the test rows.",
        {"metric": "false_negative_rate", "across": ["sex", "race"], "at_most": 0.1},
    ),
    "repeatable": (Repeatable, "Training again in an identical environment gives the same model.", {"runs": 3}),
    "parity": (Parity, "The portable model answers as the trained one does, on real rows.", {"at_most": 0.0001}),
    "latency": (Latency, "How long a prediction takes, measured in process.", {"p99": "5ms"}),
}

if TYPE_CHECKING:

    class CheckEntry(Section, frozen=True, kw_only=True):
        """One item of `checks`: a field for each kind, of which exactly one is given."""

else:
    CheckEntry = msgspec.defstruct(
        "CheckEntry",
        [
            (kind, Annotated[settings | None, Meta(description=about, examples=[example])], None)
            for kind, (settings, about, example) in CLAIMS.items()
        ],
        bases=(Section,),
        kw_only=True,
        frozen=True,
        forbid_unknown_fields=True,
        module=__name__,
    )


def given(entry: CheckEntry) -> tuple[str, Section] | None:
    """Return the kind of an entry and its settings; none for an entry that holds nothing."""
    for kind in entry.__struct_fields__:
        settings = getattr(entry, kind)
        if settings is not None:
            return kind, settings
    return None


def to_check(kind: str, settings: Section) -> Check:
    """Return the check that an entry of the file declares.

    The name is that of the kind, for a gap with its metric; the type of every limit on a metric is `metric`. What was
    left out and has no default is left out of the parameters too.

    Examples:
        >>> to_check("roc_auc", MetricLimit(at_least=0.9)).params
        {'metric': 'roc_auc', 'at_least': 0.9}
    """
    given = msgspec.json.decode(msgspec.json.encode(settings))
    blocking = given.pop("blocking")
    params = {name: value for name, value in given.items() if value is not None}
    if kind in METRICS:
        return Check(name=kind, type="metric", params={"metric": kind, **params}, blocking=blocking)
    name = f"gap.{params['metric']}" if kind == "gap" else kind
    return Check(name=name, type=kind, params=params, blocking=blocking)
