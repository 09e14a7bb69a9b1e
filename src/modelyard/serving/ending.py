"""End connections as their callers would have it: what is under way is answered, and so is what comes next.

A caller that asks again and again on one connection hears of the end by an answer that says `connection: close`. To
close the connection between two of its requests would lose the one that is on its way: it is not sent again, by
proxies neither, because it may have been done. So one that was used of late stays open for a moment.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from typing import Any

from modelyard._kit.text import plural
from modelyard.serving.told import say

__all__ = ["drain"]

# Turns of the loop in which what lies unread on a connection is read: one to ask the system, one to hear of it.
_TURNS = 2
# Seconds for the next request of a caller that made one so many seconds ago, or has just connected.
_GRACE = 0.5
# Seconds for a peer to agree that a connection ends: with TLS it is asked, and one that is idle does not listen.
_AGREED = 0.2
# Seconds of waiting for what is under way of which nothing is said.
_QUIET = 1.0


async def drain(http: Collection[Any], calls: Collection[Any], seconds: float, at_once: asyncio.Event) -> None:
    """End every connection once nothing is under way on it, and after so many seconds, or at once, whatever is.

    Args:
        http: Connections of HTTP/1.1.
        calls: Those of gRPC, which has words of its own for this.
        seconds: How long to wait for what is under way.
        at_once: Wait no longer.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    until, quiet = began + seconds, began + _QUIET
    # Nobody connects any more. A look at all of them once a second notes which ones are not used.
    patient = {one for one in http if not one.idle or began - one.idle < _GRACE}
    closing: dict[Any, float] = {}
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    while (left := [*http, *calls]) and (now := loop.time()) < until and not at_once.is_set():
        if now > quiet:
            quiet = math.inf
            waits = f"waits {seconds:g} s at most, Ctrl-C once more ends it at once"
            say(f"{plural(len(left), 'connection')} with something under way: {waits}")
        for one in left:
            if one.transport is None:
                continue
            if one.transport.is_closing():
                agreed = closing.setdefault(one, now) + _AGREED
                if now > agreed and not one.transport.get_write_buffer_size():
                    one.transport.abort()
            elif one not in patient or now > began + _GRACE:
                one.drain()
        await asyncio.sleep(0.01)
    for one in [*http, *calls]:
        one.transport.abort()
