"""The steps of a plan at which a model meets its callers: what they rely on, and the alias that it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.records import Resources, Step

if TYPE_CHECKING:
    from modelyard.spec import Spec

__all__ = ["consumer_steps", "promotion_step"]


def consumer_steps(spec: Spec) -> list[Step]:
    """Return the step that asks the new version what consumers ask; none where no contract is named."""
    if not spec.deploy.consumers:
        return []
    # Few name one, and it loads what opens bundles.
    from modelyard.deploy.local import answering, policy_of

    return [
        Step(
            name="check.consumers",
            verb="modelyard.serving.contract.steps:consumers",
            inputs={"model": "fit#model"},
            params={
                "endpoint": spec.endpoint,
                "files": list(spec.deploy.consumers),
                "policy": policy_of(answering(spec.deploy)),
                "roles": list(spec.deploy.access.roles),
            },
            outputs=("results",),
            probe="modelyard.pipeline.probes:contracts_now",
            resources=Resources(own_process=True, network=True),  # it asks a server on a port of this machine
            about=f"ask what consumers ask: {', '.join(spec.deploy.consumers)}",
        )
    ]


def promotion_step(spec: Spec) -> Step:
    """Return the step that points an alias at the new model."""
    if spec.deployed(spec.endpoint).rollout.trial:
        return Step(
            name="promote",
            verb="modelyard.deploy.steps:challenge",
            inputs={"model": "package"},
            params={"endpoint": spec.endpoint},
            outputs=("deployment",),
            probe="modelyard.pipeline.probes:aliases_now",
            about=f"put the new model on trial as {spec.endpoint}/challenger; the first one becomes the champion",
        )
    return Step(
        name="promote",
        verb="modelyard.deploy.steps:promote",
        inputs={"model": "package"},
        params={"endpoint": spec.endpoint, "alias": "champion"},
        outputs=("deployment",),
        probe="modelyard.pipeline.probes:alias_now",
        about=f"point {spec.endpoint}/champion at the new model",
    )
