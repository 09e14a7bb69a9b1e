"""Cut connections that take too long, or that nobody uses; of every protocol."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable
from typing import Any

from modelyard.serving.limits import Limits

__all__ = ["sweep"]

# Time in which a refused caller is still listened to.
_LINGER_SECONDS = 5.0


def sweep(connections: Iterable[Any], limits: Limits) -> int:
    """Cut the connections whose request takes too long or that nobody uses, and return how many there were."""
    now, cut = time.monotonic(), 0
    for connection in list(connections):
        if not connection.began:
            # Who answers has no time for the clock: what a look finds idle is so from then on.
            connection.idle = connection.idle or now
            idle = now - connection.idle
            if idle > max(limits.keep_alive, limits.total_seconds):
                # Nor does it take the answers that it asked for.
                connection.transport.abort()
                cut += 1
            elif idle > limits.keep_alive and not _asked(connection.transport):
                connection.transport.close()
                cut += 1
            continue
        if connection.lingers:
            most = _LINGER_SECONDS
        else:
            most = limits.total_seconds if connection.busy else limits.header_seconds
        if now - connection.began > most:
            connection.transport.abort()
            cut += 1
    return cut


def _asked(transport: Any) -> bool:
    """Say whether bytes have come that nobody has read: who is closed on then loses a request that it made in time."""
    opened = transport.get_extra_info("socket")
    if opened is None or not hasattr(select, "poll"):
        return False
    waiting = select.poll()
    waiting.register(opened.fileno(), select.POLLIN)
    return bool(waiting.poll(0))
