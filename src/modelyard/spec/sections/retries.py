"""The `retries` section: what is done when an attempt at a step fails for a reason that may pass."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from modelyard._kit.fields import Duration, Section, Size
from modelyard.records import Retry

__all__ = ["Retries", "to_retry"]


class Retries(Section, frozen=True, kw_only=True):
    """How often, when and with what a failed step is tried again."""

    times: Annotated[
        int,
        Meta(
            description="Attempts after the first one. A mistake that would come again (a wrong file, a wrong type) is "
            "never tried again.",
            examples=[3, 0],
            ge=0,
            le=100,
        ),
    ] = 3
    wait: Annotated[
        Duration,
        Meta(
            description="How long the first wait may last; each further one may last twice as long. The wait itself is "
            "drawn between nothing and that.",
            examples=["1s"],
        ),
    ] = 1.0
    most: Annotated[Duration, Meta(description="How long any wait may last.", examples=["1m"])] = 60.0
    memory: Annotated[
        Size | None,
        Meta(
            description="Memory that the one attempt after `out-of-memory` may hold. Left out, a step that ran out of "
            "memory is not tried again.",
            examples=["4GB"],
        ),
    ] = None
    not_before: Annotated[
        Annotated[
            str,
            Meta(
                pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z",
                extra_json_schema={"say": "a time of day: HH:MM"},
            ),
        ]
        | None,
        Meta(
            description="Local time of day before which no further attempt starts. Left out, at any time.",
            examples=["02:00"],
        ),
    ] = None


def to_retry(declared: Retries | None, otherwise: Retry | None = None) -> Retry:
    """Return the declared retries as the record that runs; where nothing is declared, `otherwise` or the default."""
    if declared is None:
        return otherwise or Retry()
    return Retry(
        times=declared.times,
        wait=declared.wait,
        most=declared.most,
        memory=declared.memory or 0,
        not_before=declared.not_before or "",
    )
