"""`deploy.guards`: what is refused, changed or held back on the way to the model and from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from modelyard._kit.fields import Column, Duration, Label, OpenShare, Section, Share

__all__ = ["Alarm", "Confidence", "Extraction", "Guards", "Outlier", "OutputCheck", "Within"]


class Outlier(Section, frozen=True, kw_only=True):
    """Rows that are unlike those the model was made from."""

    score: Annotated[
        OpenShare,
        Meta(
            description="A row is an outlier if its score lies above this. At 0.99 about one row in a hundred of "
            "those that the model was made from is.",
            examples=[0.999],
        ),
    ] = 0.999
    do: Annotated[
        Literal["warn", "reject", "quarantine"],
        Meta(
            description="What becomes of it: a warning, a refusal, or the fallback as the answer and a log of its own.",
            examples=["quarantine"],
        ),
    ] = "warn"


class Confidence(Section, frozen=True, kw_only=True):
    """What a classifier answers when it is not sure."""

    at_least: Annotated[OpenShare, Meta(description="Probability that the answered class must have.", examples=[0.6])]
    otherwise: Annotated[
        Literal["abstain", "fallback"],
        Meta(description="What is answered below it: no label, or `deploy.guards.fallback`.", examples=["abstain"]),
    ] = field(name="else", default="abstain")


class Within(Section, frozen=True, kw_only=True):
    """Between which values a regression answers."""

    low: Annotated[float | None, Meta(description="Lowest answer.", examples=[0])] = None
    high: Annotated[float | None, Meta(description="Highest answer.", examples=[80])] = None
    do: Annotated[
        Literal["clip", "abstain", "fallback"],
        Meta(
            description="What becomes of an answer outside: the nearest value inside, no answer, or "
            "`deploy.guards.fallback`.",
            examples=["clip"],
        ),
    ] = "clip"


class OutputCheck(Section, frozen=True, kw_only=True):
    """A look at the answers before anybody gets them."""

    use: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z][A-Za-z0-9_-]{0,62}|[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*)\Z",
            description="Which: `blocklist`, `labels` or `unusual`; one that an installed package brings, by its name; "
            "or a function of the project, FILE.py:FUNCTION.",
            examples=["unusual", "guards.py:harmful"],
            extra_json_schema={"say": "a name, or a file and a function: FILE.py:FUNCTION"},
        ),
    ]
    params: Annotated[
        dict[str, Any],
        Meta(description="Parameter of the check -> value.", examples=[{"terms": ["idiot"]}]),
    ] = field(default_factory=dict)
    do: Annotated[
        Literal["warn", "abstain", "fallback"],
        Meta(
            description="What becomes of an answer that it marks: a warning beside it, no answer, or "
            "`deploy.guards.fallback`.",
            examples=["fallback"],
        ),
    ] = "abstain"
    above: Annotated[
        float,
        Meta(
            description="Score from above which an answer is marked, where the check gives scores.",
            examples=[0.8],
        ),
    ] = 0.5
    timeout: Annotated[
        Duration,
        Meta(
            description="Time that it may take for the rows that are answered together; built-in ones are not timed.",
            examples=["20ms"],
        ),
    ] = 0.05
    on_error: Annotated[
        Literal["abstain", "accept"] | None,
        Meta(
            description="What becomes of rows that it could not look at, for it failed or took too long. Left out, "
            "they are treated as marked; with `do: warn` they are accepted.",
            examples=["accept"],
        ),
    ] = None


class Extraction(Section, frozen=True, kw_only=True):
    """Callers that ask as if they copied the model."""

    score: Annotated[
        OpenShare,
        Meta(
            description="Score of a caller's newest rows, from 0 (as usual) to 1, above which it is suspected.",
            examples=[0.3],
        ),
    ] = 0.3
    do: Annotated[
        Literal["warn", "limit"],
        Meta(
            description="What becomes of it: a line in the logs and a count, or besides these no answers for an hour.",
            examples=["limit"],
        ),
    ] = "warn"


class Alarm(Section, frozen=True, kw_only=True):
    """When so many rows are refused or held back that somebody should look."""

    share: Annotated[Share, Meta(description="Part of the rows that may be.", examples=["5%"])] = 0.05
    window: Annotated[Duration, Meta(description="Time that is looked back over.", examples=["5m"])] = 300.0
    then: Annotated[
        Literal["tell", "kill"],
        Meta(
            description="What is done then: those in `alerts` are told, or besides that the endpoint is switched off "
            "until somebody runs `modelyard revive`.",
            examples=["kill"],
        ),
    ] = "tell"


class Guards(Section, frozen=True, kw_only=True):
    """What is refused, changed or held back on the way to the model and from it."""

    unseen: Annotated[
        Literal["warn", "reject"],
        Meta(description="What becomes of a category that was not seen in training.", examples=["reject"]),
    ] = "warn"
    out_of_range: Annotated[
        Literal["warn", "reject", "clip"],
        Meta(
            description="What becomes of a number outside the range seen in training; `clip` gives the model the "
            "nearest one inside, and says so.",
            examples=["clip"],
        ),
    ] = "warn"
    missing: Annotated[
        Literal["accept", "warn", "reject"],
        Meta(
            description="What becomes of a missing value in a column that may miss values; in others it is refused.",
            examples=["warn"],
        ),
    ] = "accept"
    outlier: Annotated[
        Outlier | None,
        Meta(description="What becomes of rows unlike those the model was made from.", examples=[{"do": "reject"}]),
    ] = None
    coerce: Annotated[
        tuple[Column, ...],
        Meta(
            description='Columns in which a text is taken as the number it shows (`"42"`), and a number as the text '
            "it is written as. Elsewhere the wrong type is refused.",
            examples=[["age"]],
        ),
    ] = ()
    confidence: Annotated[
        Confidence | None,
        Meta(description="What a classifier answers when it is not sure.", examples=[{"at_least": 0.6}]),
    ] = None
    within: Annotated[
        Within | None,
        Meta(description="Between which values a regression answers.", examples=[{"low": 0, "high": 80}]),
    ] = None
    fallback: Annotated[
        Label | None,
        Meta(
            description="What is answered in place of an answer that is held back: a class, or a number.",
            examples=["review"],
        ),
    ] = None
    checks: Annotated[
        tuple[OutputCheck, ...],
        Meta(
            description="Looks at the answers before anybody gets them, for harmful or irrelevant ones.",
            examples=[[{"use": "guards.py:harmful", "do": "fallback"}]],
        ),
    ] = ()
    extraction: Annotated[
        Extraction | None,
        Meta(
            description="What becomes of callers that ask as if they copied the model.",
            examples=[{"do": "limit"}],
        ),
    ] = None
    alarm: Annotated[
        Alarm | None,
        Meta(
            description="When so many rows are refused or held back that those in `alerts` are told.",
            examples=[{"share": "5%", "window": "5m"}],
        ),
    ] = None
