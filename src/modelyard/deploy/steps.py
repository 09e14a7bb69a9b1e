"""What a run does at its end: a plain function, whose result the runner writes as an event."""

from __future__ import annotations

from typing import Any

from modelyard.deploy.aliases import successor
from modelyard.inference import Bundle
from modelyard.records import Alias, Deployment, ModelVersion, read_value

__all__ = ["promote"]


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
