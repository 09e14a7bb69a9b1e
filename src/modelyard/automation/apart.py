"""Small things that every part of the daemon waits by: a thread for what may take long, and growing pauses."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["apart", "pause"]

# Seconds of the first pause, and of the longest.
_FIRST, _MOST = 0.1, 60.0

T = TypeVar("T")


async def apart(call: Callable[[], T]) -> T:
    """Run what may take long in a thread of its own, which does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[Any], None], value: object) -> None:
        if not future.done():
            how(value)

    def work() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            end = (future.set_exception, error)
        else:
            end = (future.set_result, value)  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(settle, *end)

    threading.Thread(target=work, daemon=True).start()
    return await future


def pause(failures: int) -> float:
    """Return the seconds to wait before what failed so often in a row is tried again.

    >>> [pause(n) for n in (1, 2, 5, 50)]
    [0.1, 0.2, 1.6, 60.0]
    """
    return float(min(_MOST, _FIRST * 2.0 ** min(failures - 1, 30)))
