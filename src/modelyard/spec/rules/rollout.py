"""What cannot stand in `deploy.rollout`."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.deploy.rollout import Rollout
from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding

__all__ = ["rollout_rules"]


def rollout_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what would do nothing, or cannot be done."""
    yield from _rollout(d.deploy.rollout, "deploy.rollout")
    for name, stage in d.deploy.stages.items():
        if stage.rollout is not None:
            yield from _rollout(stage.rollout, f"deploy.stages.{name}.rollout")


def _rollout(rollout: Rollout, at: str) -> Iterator[Finding]:
    if rollout.watch is not None and rollout.canary is None:
        yield Finding(
            f"{at}.watch",
            "`watch` has nothing to watch: no canary is declared",
            "add `canary: 10%`, or leave `watch` out",
            (at,),
        )
    if rollout.ab is None:
        return
    if rollout.canary is not None:
        yield Finding(
            f"{at}.ab",
            "`canary` and `ab` both say how many requests the challenger answers",
            "leave one of them out",
            (at,),
        )
    if (rollout.ab.metric == "label") != (rollout.ab.label is not None):
        yield Finding(
            f"{at}.ab.metric",
            "`metric: label` compares the share of a class, and `label` says of which: neither stands alone",
            "add the other one, or leave both out",
            (at,),
        )
