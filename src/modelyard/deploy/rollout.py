"""`deploy.rollout`: how a new version is tried before it becomes the champion."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from modelyard._kit.fields import Duration, DurationOrNone, Label, OpenShare, Section

__all__ = ["Ab", "Rollout"]


class Ab(Section, frozen=True, kw_only=True):
    """Champion and challenger answer their shares until one of them is better."""

    share: Annotated[
        OpenShare, Meta(description="Share of the requests that the challenger answers.", examples=["50%"])
    ] = 0.5
    metric: Annotated[
        Literal["error", "ms", "label"],
        Meta(
            description="What is compared: `error`, the share of wrong classes or the mean absolute error, once "
            "outcomes are joined; `ms`, the time of an answer; `label`, the share of the answers that are "
            "`deploy.rollout.ab.label`.",
            examples=["error"],
        ),
    ] = "error"
    label: Annotated[
        Label | None, Meta(description="Class whose share is compared with `metric: label`.", examples=["approve"])
    ] = None
    higher_is_better: Annotated[
        bool,
        Meta(
            description="The version with more of `label` is better; of errors and milliseconds fewer are.",
            examples=[True],
        ),
    ] = True
    alpha: Annotated[
        OpenShare,
        Meta(
            description="Chance of a verdict where there is no difference, however often anybody looks.",
            examples=[0.05],
        ),
    ] = 0.05
    min: Annotated[
        int,
        Meta(
            ge=100,
            description="Keys of each version that have an outcome before any verdict; a request without "
            "`x-canary-key` is a key of its own.",
            examples=[500],
        ),
    ] = 500
    at_most: Annotated[
        Duration,
        Meta(description="Time after which a challenger that is no better is taken back.", examples=["14d"]),
    ] = 1_209_600.0
    promote: Annotated[
        bool,
        Meta(
            description="A challenger that won becomes the champion by itself. Otherwise it keeps its share until "
            "somebody promotes it.",
            examples=[True],
        ),
    ] = False


class Rollout(Section, frozen=True, kw_only=True):
    """How a challenger is tried before it becomes the champion, and a new champion is watched."""

    canary: Annotated[
        OpenShare | None,
        Meta(
            description="Share of the requests that the challenger answers. It is taken back by itself when it errs, "
            "is slower than the champion or answers too differently. Left out, it answers none.",
            examples=["10%"],
        ),
    ] = None
    watch: Annotated[
        Duration | None,
        Meta(
            description="How long a canary has to hold before it becomes the champion by itself. Left out, it stays a "
            "challenger until somebody promotes it.",
            examples=["1h"],
        ),
    ] = None
    ab: Annotated[
        Ab | None,
        Meta(
            description="Champion and challenger answer their shares until one of them is better, by a test that may "
            "be looked at any time: `modelyard ab`.",
            examples=[{"share": "50%", "metric": "error", "promote": True}],
        ),
    ] = None
    shadow: Annotated[
        bool,
        Meta(
            description="The challenger gets a copy of the requests, and its answers are only compared with the "
            "champion's.",
            examples=[True],
        ),
    ] = False
    probation: Annotated[
        DurationOrNone,
        Meta(
            description="How long a new champion is watched: one that errs on live traffic gives its place back to the "
            "version before it. `0`: it never does.",
            examples=["5m"],
        ),
    ] = 300.0
    p99: Annotated[
        Duration | None,
        Meta(
            description="Time within which a version has to give 99 of 100 answers to rows of its own profile before "
            "it goes live. Left out, any.",
            examples=["5ms"],
        ),
    ] = None

    @property
    def trial(self) -> bool:
        """Whether a new version is tried as the challenger before it becomes the champion."""
        return self.canary is not None or self.ab is not None or self.shadow
