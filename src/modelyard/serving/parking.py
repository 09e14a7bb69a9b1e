"""Have a request wait for room in the log: an answer that could not be recorded is not given."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from modelyard.serving.asked import Asked
from modelyard.serving.errors import HttpError, killed
from modelyard.serving.http.exchange import fail
from modelyard.serving.sifting import drop, stays

if TYPE_CHECKING:
    from modelyard.serving.service import Service

__all__ = ["park"]

# Seconds between two looks whether there is room.
_EVERY = 0.01


def park(service: Service, asked: Asked, until: float) -> None:
    """Hand a request to its model once there is room in the log, and refuse it (503) if there is none in time.

    Args:
        service: Whose it is; it counts the request as one that waits.
        asked: The request.
        until: When it is refused, of the monotonic clock.
    """
    there = stays(asked)
    if there and service.log.full and not service.killed and time.monotonic() < until:
        asyncio.get_running_loop().call_later(_EVERY, park, service, asked, until)
        return
    service.batcher.waiting -= 1
    if not there:
        drop([asked])
        return
    if service.killed:
        asked.exchange.refuse(killed())
        return
    if service.log.full:
        message = "the server cannot keep up with its records; try again"
        asked.exchange.refuse(HttpError(503, "log-full", message, headers=((b"retry-after", b"5"),)))
        return
    try:
        # Its time goes on.
        service.batcher.sifts = True
        service.batcher.ask(asked)
    except Exception as error:  # noqa: BLE001 - who waits is not called by those that answer every error
        fail(asked.exchange, error)
