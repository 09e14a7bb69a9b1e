"""What cannot stand in `deploy.rollout`."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.spec.declaration import Declaration
from modelyard.spec.report import Finding

__all__ = ["rollout_rules"]


def rollout_rules(d: Declaration) -> Iterator[Finding]:
    """Yield what would do nothing."""
    rollout = d.deploy.rollout
    if rollout.watch is not None and rollout.canary is None:
        yield Finding(
            "deploy.rollout.watch",
            "`watch` has nothing to watch: no canary is declared",
            "add `canary: 10%`, or leave `watch` out",
            ("deploy.rollout",),
        )
