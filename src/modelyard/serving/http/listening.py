"""Ask a caller that has closed its end of a connection whether it still listens.

To a server it looks alike whether a caller has said all it has to say or has hung up: only what is sent to it tells.
A caller in HTTP/1.1 passes over answers that are not the last ones (RFC 9110, section 15.2), and the system of one that
has hung up says so: what is sent after that closes the connection, and nothing is made for nobody.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["listen"]

# When it is first asked, in seconds; then after twice as long, up to the longest.
_FIRST, _LONGEST = 0.05, 1.0
_STILL = b"HTTP/1.1 102 Processing\r\n\r\n"


def listen(connection: Any, wait: float = _FIRST) -> None:
    """Ask from time to time, as long as an answer is not there."""
    asyncio.get_running_loop().call_later(wait, _ask, connection, wait)


def _ask(connection: Any, wait: float) -> None:
    if connection.transport is None or not connection.busy:
        return
    connection.transport.write(_STILL)
    listen(connection, min(2 * wait, _LONGEST))
