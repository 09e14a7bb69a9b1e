"""Whether something that is due can be at work at all, between its due time, its deadline and the windows it avoids."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

from modelyard._kit.times.recurrence import Recurrence, upcoming
from modelyard._kit.times.spans import Span, starts, without
from modelyard._kit.times.windows import Windows
from modelyard._kit.times.zones import DAY

__all__ = ["ever", "latest_start", "rooms"]

# Where no deadline is declared, a run waits a week at most: then every window has come once.
_LONGEST_WAIT = 7.0 * DAY
# What is found must not depend on when the file is read.
_REFERENCE = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_MOST_DUES = 500
_HORIZON = 400.0 * DAY
# After so many years every leap day has met every day of the week.
_LONGEST_CYCLE = 41.0 * 366 * DAY


def latest_start(due: Recurrence, earliest: float, takes: float, deadline: float | None) -> float:
    """Return when something must start at the latest.

    Args:
        due: When it is due; without a deadline it starts before it is due again.
        earliest: When it may start at first.
        takes: How long it takes, seconds.
        deadline: When it must have ended; none where that is not declared.
    """
    if deadline is not None:
        return deadline - takes
    return min(due.after(earliest) - 1.0, earliest + _LONGEST_WAIT)


def rooms(avoid: Windows, takes: float, earliest: float, latest: float) -> list[Span]:
    """Return from when to when it may start so that it is never at work in a window to avoid; ends included.

    Args:
        avoid: The windows.
        takes: How long it takes, above 0 seconds: what takes no time would fit into the moment at which one begins.
        earliest: When it may start at first.
        latest: When it may start at last.
    """
    if latest < earliest:
        return []
    end = latest + takes
    return starts(without((earliest, end), avoid.spans(earliest, end)), takes, earliest, latest)


def ever(due: Recurrence, avoid: Windows, takes: float, deadline: Callable[[float], float] | None) -> bool:
    """Say whether it can ever start.

    The first due times from 2024 on are tried one by one. Where there are many, each free stretch of a year is tried
    with the last due time before its end: none has its latest start later.
    """

    def fits(at: float) -> bool:
        latest = latest_start(due, at, takes, deadline(at) if deadline else None)
        return bool(rooms(avoid, takes, at, latest))

    first = due.after(_REFERENCE) if due.after(_REFERENCE) < math.inf else due.after(0.0)
    if first == math.inf:
        return False
    at = first
    for at in upcoming(due, first - 1.0, _MOST_DUES):
        if fits(at):
            return True
        if at - first > _LONGEST_CYCLE:
            break
    if at - first > _HORIZON:
        return False
    for _, end in rooms(avoid, takes, first, first + _HORIZON):
        if first <= (last := due.last(end)) and fits(last):
            return True
    return False
