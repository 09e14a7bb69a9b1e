"""`deploy.stages`: what a model passes through on its way to its callers, and what it needs to enter each."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from modelyard._kit.fields import Section
from modelyard.deploy.rollout import Rollout

__all__ = ["Stage", "endpoint_at"]


class Stage(Section, frozen=True, kw_only=True):
    """One stage: an endpoint of its own."""

    approvals: Annotated[
        int,
        Meta(
            ge=0,
            description="How many persons have to approve a model, as its card describes it, before it enters: "
            "`modelyard approve`. The first stage gets what `modelyard run` makes, and asks nobody.",
            examples=[2],
        ),
    ] = 0
    four_eyes: Annotated[
        bool,
        Meta(description="The approval of the one who promotes does not count.", examples=[True]),
    ] = False
    rollout: Annotated[
        Rollout | None,
        Meta(
            description="How a challenger is tried in this stage. Left out, as `deploy.rollout` says.",
            examples=[{"canary": "10%", "watch": "1h"}],
        ),
    ] = None


def endpoint_at(model: str, stage: str) -> str:
    """Return the name of the endpoint that a stage of a model is.

    Examples:
        >>> endpoint_at("income", "prod")
        'income-prod'
    """
    return f"{model}-{stage}"
