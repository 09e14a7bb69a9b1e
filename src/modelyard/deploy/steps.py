"""What a run does at its end: a plain function, whose result the runner writes as an event."""

from __future__ import annotations

from typing import Any

from modelyard.deploy.aliases import successor
from modelyard.inference import Bundle
from modelyard.records import Alias, Deployment, ModelVersion, read_value

__all__ = ["challenge", "promote"]


def promote(
    *,
    model: ModelVersion | Bundle,
    endpoint: str,
    alias: Alias = "champion",
    state: dict[str, Any] | None = None,
) -> Deployment:
    """Return the deployment that points an alias at a model which passed the gate.

    Args:
        model: A released version, or its opened bundle.
        endpoint: Name of the endpoint.
        alias: `champion` or `challenger`.
        state: What the probe `alias_now` saw: where the alias points, under `unkeyed`.

    Raises:
        Refused: The model has no card (`no-card`).
    """
    version = model if isinstance(model, ModelVersion) else model.version
    now: Deployment | None = read_value((state or {}).get("unkeyed"))
    return successor(now, endpoint, alias, version, "gate passed")


def challenge(*, model: ModelVersion | Bundle, endpoint: str, state: dict[str, Any]) -> Deployment:
    """Return the deployment that puts a model which passed the gate on trial beside the champion.

    The first model of an endpoint has nobody to be tried beside: it becomes the champion at once. So does the
    champion's model with another card.

    Args:
        model: A released version, or its opened bundle.
        endpoint: Name of the endpoint.
        state: What the probe `aliases_now` saw: where each alias points, under `unkeyed`.

    Raises:
        Refused: The model has no card (`no-card`).
    """
    version = model if isinstance(model, ModelVersion) else model.version
    champion: Deployment | None = read_value(state["unkeyed"]["champion"])
    if champion is None or champion.model.digest == version.digest:
        return successor(champion, endpoint, "champion", version, "gate passed")
    challenger: Deployment | None = read_value(state["unkeyed"]["challenger"])
    return successor(challenger, endpoint, "challenger", version, "gate passed, on trial")
