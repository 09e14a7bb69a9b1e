"""Send what is due now and wait for it: for a container or a job that ends with its run, and all processes with it."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelyard._kit.errors import Busy
from modelyard.automation.alerts.sender import Sender
from modelyard.records import Alert
from modelyard.spec import Spec
from modelyard.store import Store

__all__ = ["send_now"]

_PAUSE = 0.1
# Seconds within which a sender that is there has read what was written before we came.
_READ = 2.0


def send_now(spec: Spec, store: Store, seconds: float, say: Callable[[str], None] = lambda _: None) -> list[Alert]:
    """Send what is due, or wait while another sender does.

    Args:
        spec: The declaration.
        store: The project's store.
        seconds: How long at most.
        say: Takes what a person should know.

    Returns:
        What is due and was not sent in time.
    """
    began = time.monotonic()
    while True:
        left = began + seconds - time.monotonic()
        try:
            return Sender(spec, store, say=say).flush(max(0.0, left))
        except Busy:
            now = time.time()
            due = [alert for alert in store.ledger.alerts(states=("waiting",)) if alert.due <= now]
            if left <= 0 or (not due and time.monotonic() - began >= _READ):
                return due
            time.sleep(_PAUSE)
