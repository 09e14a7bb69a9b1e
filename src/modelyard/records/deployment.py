"""Which model answers where, and one answered request."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelyard.records.base import Value
from modelyard.records.model import ModelVersion

__all__ = ["Alias", "Deployment", "Request"]

Alias = Literal["champion", "challenger"]


class Deployment(Value, frozen=True, kw_only=True, tag="deployment"):
    """An alias of an endpoint that points at a model version.

    Attributes:
        endpoint: Name of the endpoint.
        alias: `champion` or `challenger`.
        model: The version it points at.
        revision: 1, 2, 3, ... for each move of this alias.
        previous: Digest of the model it pointed at before; empty at first.
        reason: Why it moved: `gate passed`, `rollback by ...`.
    """

    endpoint: str
    alias: Alias
    model: ModelVersion
    revision: int
    previous: str = ""
    reason: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One answered inference.

    Attributes:
        id: Id of the request, given by the caller or by the server.
        time: Seconds since 1970 UTC.
        model: Digest of the model that answered.
        caller: Name of the token.
        inputs: One row by column name.
        output: What was answered: prediction and, for a classifier, probabilities.
        ms: Milliseconds from the parsed request to the answer.
        truth: The outcome, once it is known.
    """

    id: str
    time: float
    model: str
    caller: str
    inputs: dict[str, Any]
    output: dict[str, Any]
    ms: float
    truth: str | float | None = None
