"""Repeat an action at a fixed interval, without overlap and without drift."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from modelyard._kit.clock import Clock

__all__ = ["every"]

# Waits for so many seconds; returns whether it was asked to stop meanwhile.
Wait = Callable[[float], bool]


def every(
    seconds: float,
    action: Callable[[], object],
    *,
    times: int = 0,
    clock: Clock = time.monotonic,
    wait: Wait | None = None,
) -> int:
    """Call an action now and then at every multiple of an interval after the first call.

    The times are counted from the first call, so that the length of the action does not move them. An action that takes
    longer than the interval is never started a second time beside itself: the times it missed are left out.

    Args:
        seconds: The interval, above 0.
        action: What is done. An error that it raises ends the repetition.
        times: How often; 0 means until `wait` says stop.
        clock: Source of the time; tests give their own.
        wait: Waits a number of seconds and says whether to stop; by default it sleeps and never stops.

    Returns:
        How many times were left out because the action was still at work.

    Raises:
        ValueError: The interval is not above 0.
    """
    if not seconds > 0:
        raise ValueError(f"the interval must be above 0 seconds, not {seconds}")
    wait = wait or threading.Event().wait
    began = clock()
    number = missed = done = 0
    while True:
        action()
        done += 1
        if times and done >= times:
            return missed
        passed = clock() - began
        following = max(number + 1, math.ceil(passed / seconds))
        missed += following - number - 1
        number = following
        if wait(max(0.0, began + number * seconds - clock())):
            return missed
