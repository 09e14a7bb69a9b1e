"""The `card` section: what only a person can say of a model."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from modelyard._kit.fields import Section, Texts

__all__ = ["CardText", "IntendedUse"]


class IntendedUse(Section, frozen=True, kw_only=True):
    """What the model is for, for whom, and what it is not for."""

    for_: Annotated[
        Texts,
        Meta(
            description="Uses that the model was made for. A model without any is not released.",
            examples=[["Order applications for a person to look at"]],
        ),
    ] = field(name="for", default=())
    users: Annotated[
        Texts,
        Meta(
            description="People who are meant to use it. A model without any is not released.",
            examples=[["Credit officers"]],
        ),
    ] = ()
    not_for: Annotated[
        Texts,
        Meta(
            description="Uses that are out of scope. A model without any is not released.",
            examples=[["Refusing an application without a person"]],
        ),
    ] = ()


class CardText(Section, frozen=True, kw_only=True):
    """The human part of the model card; every number in the card comes from evidence."""

    intended_use: Annotated[
        IntendedUse,
        Meta(
            description="What the model is for, for whom, and what it is not for.",
            examples=[{"users": ["Credit officers"]}],
        ),
    ] = IntendedUse()
    factors: Annotated[
        Texts,
        Meta(
            description="Columns by which results may differ; the card shows error rates for each of their groups and "
            "intersections.",
            examples=[["sex", "race", "age"]],
        ),
    ] = ()
    ethics: Annotated[
        Texts,
        Meta(
            description="Ethical considerations: who may be harmed, and what is done about it. A model without any is "
            "not released.",
            examples=["A wrong low score delays an application; a person reads each one."],
        ),
    ] = ()
    caveats: Annotated[
        Texts,
        Meta(
            description="Caveats and recommendations for those who use it. A model without any is not released.",
            examples=["The data are from 1994; incomes are not today's."],
        ),
    ] = ()
    evaluation_data: Annotated[
        Texts,
        Meta(
            description="Remarks on the test data: why these, and what is hard about them. Counts come from evidence.",
            examples=["The newest fifth of the applications."],
        ),
    ] = ()
    training_data: Annotated[
        Texts,
        Meta(
            description="Remarks on the training data: where they come from, who is in them. Counts come from "
            "evidence.",
            examples=["Census records of adults in the United States."],
        ),
    ] = ()
