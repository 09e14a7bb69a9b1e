"""The `monitor` section: how far live requests may move from the training data."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from modelyard._kit.fields import Section, Share

__all__ = ["Drift", "Monitor"]


class Drift(Section, frozen=True, kw_only=True):
    """Largest differences between the window and the training data that pass."""

    psi: Annotated[
        float,
        Meta(
            description="Largest population stability index of a column or of the predictions; 0.1 is often called "
            "small and 0.25 large.",
            examples=[0.2],
            gt=0,
        ),
    ] = 0.2
    ks: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(
            description="Largest Kolmogorov-Smirnov distance of a number column. Left out, it is reported and not "
            "limited.",
            examples=[0.15],
        ),
    ] = None
    missing: Annotated[
        Share,
        Meta(description="Largest increase of the share of missing values of a column.", examples=["5%"]),
    ] = 0.05
    unseen: Annotated[
        Share,
        Meta(description="Largest share of values of a category that training never saw.", examples=["1%"]),
    ] = 0.01


class Monitor(Section, frozen=True, kw_only=True):
    """What `modelyard watch` compares."""

    drift: Annotated[Drift, Meta(description="Largest differences that pass.", examples=[{"psi": 0.2}])] = Drift()
    window: Annotated[
        int,
        Meta(description="Newest requests that are looked at.", examples=[500], ge=1),
    ] = 1000
