"""Try a target by hand: a test message, now, and what the target says."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

from modelyard._kit.clock import Clock
from modelyard._kit.errors import NotFound
from modelyard.automation.alerts.lanes import Deliver, Outcome
from modelyard.automation.alerts.routes import targets
from modelyard.automation.alerts.send import Post
from modelyard.automation.alerts.text import message
from modelyard.automation.alerts.undelivered import Undelivered
from modelyard.records import Alert
from modelyard.spec import Spec

__all__ = ["try_targets"]


def try_targets(
    spec: Spec, only: str = "", *, deliver: Deliver | None = None, clock: Clock = time.time
) -> Iterator[Outcome]:
    """Send a test message to each target, one after the other, and yield what came of it.

    Args:
        spec: The declaration.
        only: Name of a target; all of them if left out.
        deliver: Hands messages over.
        clock: Source of the time.

    Raises:
        NotFound: There is no target of this name.
    """
    known = targets(spec)
    if only and only not in known:
        raise NotFound.of("target", only, known)
    deliver = deliver or Post(lambda: spec)
    for name, target in known.items():
        if only in ("", name):
            now = clock()
            alert = Alert(
                id=f"test-{secrets.token_hex(8)}",
                target=name,
                on="test",
                urgency="low",
                key="test",
                cause=0,
                at=now,
                due=now,
                title=f"{spec.project}: test message",
                text=f"Somebody tries whether alerts of {spec.project} reach `{name}`. They do.",
            )
            told = message([alert], project=spec.project)
            try:
                yield Outcome(name, told, said=deliver(target, told))
            except Undelivered as error:
                yield Outcome(name, told, error=str(error), wait=error.wait)
