"""`deploy.runtime`: what has to hold for what answers for the model, or which it is."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from modelyard._kit.fields import Duration, Section, Share, Size
from modelyard.checks.runtimes import ALIKE, Limits
from modelyard.records import ModelVersion, RuntimeName
from modelyard.store.base import Store
from modelyard.store.decisions import newest_decision

__all__ = ["RuntimeLimits", "limits_of", "undecided"]


class RuntimeLimits(Section, frozen=True, kw_only=True):
    """What has to hold for what answers for the model; `modelyard runtimes` chooses the cheapest for which it does."""

    name: Annotated[
        RuntimeName | None,
        Meta(
            description="The only one that may be chosen: `kernels` (our own form of trees), `onnxruntime`, `int8` "
            "(the same with weights of 8 bits) or `native` (the library that trained the model). Left out, any.",
            examples=["onnxruntime"],
        ),
    ] = None
    p99: Annotated[
        Duration | None,
        Meta(
            description="Time that 99 of 100 predictions stay below, from the encoded rows to the output. Left out, "
            "any.",
            examples=["5ms"],
        ),
    ] = None
    memory: Annotated[
        Size | None,
        Meta(description="Resident memory that it may add to a server. Left out, any.", examples=["200MB"]),
    ] = None
    size: Annotated[
        Size | None, Meta(description="Size of the files that it reads. Left out, any.", examples=["50MB"])
    ] = None
    batch: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Rows of the predictions for which all of this holds.", examples=[32]),
    ] = 1
    max_loss: Annotated[
        Share | None,
        Meta(
            description="How far its answers may be from those that the model was released with: 99 of 100 rows stay "
            "below it (a probability, or a prediction relative to their spread), and at most so many rows get another "
            f"label. Left out, {ALIKE:.2%}, or any where `name` is given.",
            examples=["0.5%"],
        ),
    ] = None


def limits_of(declared: RuntimeLimits | None) -> Limits:
    """Return what is asked of a runtime, with what holds where nothing is declared."""
    if declared is None:
        return Limits()
    loss = declared.max_loss
    if loss is None and declared.name is None:
        loss = ALIKE
    return Limits(
        name=declared.name,
        p99=declared.p99,
        memory=declared.memory,
        size=declared.size,
        batch=declared.batch,
        max_loss=loss,
    )


def undecided(store: Store, model: ModelVersion, declared: RuntimeLimits | None) -> str:
    """Return what an operator should know of limits that are declared and were never measured; empty: nothing."""
    if declared is None or newest_decision(store.ledger, model.digest) is not None:
        return ""
    return (
        "`deploy.runtime` is declared, and was not measured for this model: it is answered for as it was released; "
        "`modelyard runtimes` measures and chooses"
    )
