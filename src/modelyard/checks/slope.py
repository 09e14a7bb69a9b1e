"""The slope of a series: of values around a line, of values that wander; and whether memory grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.checks.verdict import level_text
from modelyard.records import Check, CheckResult, Evidence, Interval, Limit, Status

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FEWEST", "drift", "growth", "slope"]

# Of fewer values a slope says nothing.
FEWEST = 8
LEVEL = 0.95
_SEN = "Theil-Sen slope, interval by Sen (1968)"
_DRIFT = "drift of a random walk, Student's t on the differences of medians"
# The medians of so many spans are looked at: of each span, what most of its samples say.
_SPANS = 20
# Differences between the means of neighbouring spans of a random walk are alike by a quarter, so their sum varies so
# many times as much as that of independent ones; where each sample has noise of its own it varies less.
_ALIKE = 1.5
# The first share of the samples, in which caches fill.
_FIRST = 0.2
# Kilobytes a minute of bytes a second.
_SCALE = 60 / 1000
# Bytes a request below which growth is no leak.
_LEAST = 1.0


def slope(times: Sequence[float], values: Sequence[float], *, level: float = LEVEL) -> tuple[float, Interval]:
    """Return the median slope between all pairs of points, with its interval of confidence.

    A quarter of the values may be anything without moving it far. The interval is that of values which lie around a
    line, each by a chance of its own: of a random walk it holds the truth in 3 of 10 cases, not in 95 of 100. Source:
    P. K. Sen, Estimates of the Regression Coefficient Based on Kendall's Tau, JASA 63 (1968).

    Args:
        times: When; no two alike.
        values: What was seen then, at least two.
        level: Confidence, in (0, 1).
    """
    from scipy.stats import theilslopes

    found = theilslopes(values, times, alpha=level)
    interval = Interval(low=float(found[2]), high=float(found[3]), level=level, method=_SEN)
    return float(found[0]), interval


def drift(times: Sequence[float], values: Sequence[float], *, level: float = LEVEL) -> tuple[float, Interval]:
    """Return by how much values grow from the first to the last, with an interval for values that wander.

    What wanders goes on from where it is, so that chance adds up, and a walk that leads nowhere ends far away. How far,
    its single steps say.

    Args:
        times: When; ascending, about as far from each other.
        values: Means or medians of what was seen around then, at least three.
        level: Confidence, in (0, 1).
    """
    import numpy as np
    from scipy.stats import t

    steps = np.diff(values)
    lasted = (times[-1] - times[0]) / len(steps)
    error = float(np.std(steps, ddof=1)) * (_ALIKE / len(steps)) ** 0.5
    value, reach = float(np.mean(steps)), float(t.ppf((1 + level) / 2, len(steps) - 1)) * error
    interval = Interval(low=(value - reach) / lasted, high=(value + reach) / lasted, level=level, method=_DRIFT)
    return value / lasted, interval


def growth(
    times: Sequence[float],
    sizes: Sequence[float],
    *,
    name: str = "load.memory",
    most: float = 2 * 2**20,
    requests: int = 0,
    settle: float = _FIRST,
) -> CheckResult:
    """Hold the growth of memory against a limit, over the whole time and over each half of it.

    A process takes memory from the system in steps, of which some come late, and what it holds wanders. What is told is
    the drift, with the interval that this wandering leaves open: where that holds zero, memory does not grow within its
    noise. Where all of it is below the limit, the check has passed: more is excluded.

    A leak goes on: it is called one where even the lower bound of the median slope (`slope`) is above the limit over
    the whole time and over either half. Where neither is so, nothing can be told yet. The limit is `most` bytes over
    the whole time, or a byte a request where that is more; the longer one looks, the slower a leak is found.

    Of 1,000 simulated runs of 240 samples with the default limit so many were called leaks, and so many passed:

    - flat: 0 and 1,000; one late step of 256 to 512 kB: 0 and 1,000; four of them: 0 and 6
    - random walk without a drift that ends 0.3 MB away: 0 and 1,000; 1.3 MB: 0 and 368. The interval held zero in 948
      and 946 of them.
    - on a straight line 1 MiB: 0 and 1,000; 2.2 MiB: 1,000 and 0
    - 6 MiB in a walk of 1.3 MB: 868 and 0; 3 MiB: 213 and 2

    Args:
        times: Seconds, ascending.
        sizes: Bytes.
        name: Name of the check.
        most: Bytes that may come on top over the whole time.
        requests: Requests that were answered meanwhile.
        settle: Share of the time that is left to caches to fill; 0 where the server was warmed up before.
    """
    import numpy as np

    check = Check(name=name, type="load", params={"most_bytes": most, "most_bytes_a_request": _LEAST}, blocking=False)
    first = int(len(times) * settle)
    when, what = np.asarray(times, float)[first:], np.asarray(sizes, float)[first:]
    spans = min(_SPANS, len(when) // 2)
    method = f"{_DRIFT} of {_SPANS} spans; a leak by the {_SEN}"
    if spans < FEWEST:
        reason = f"{len(when)} samples tell too little about a slope; it needs {2 * FEWEST}"
        found = Evidence(measure="memory_slope", value=None, unit="kB/min", n=len(when), method=method, volatile=True)
        return CheckResult(check=check, status="insufficient", reason=reason, limit=None, evidence=found)
    lasted = float(when[-1] - when[0])
    middles = [float(np.median(part)) for part in np.array_split(when, spans)]
    held = [float(np.median(part)) for part in np.array_split(what, spans)]
    value, interval = _by_minute(*drift(middles, held))
    half = spans // 2
    parts = [slice(None), slice(half), slice(half, None)]
    slopes = [_by_minute(*slope(middles[part], held[part])) for part in parts]
    limit = Limit(op="at_most", value=max(most, _LEAST * requests) / lasted * _SCALE, unit="kB/min")
    status: Status = "passed" if interval.high <= limit.value else "insufficient"
    if all(between.low > limit.value for _, between in slopes):
        status = "failed"
    details: dict[str, Any] = {
        "requests": requests,
        "samples": len(when),
        "seconds": lasted,
        "begins_bytes": held[0],
        "ends_bytes": held[-1],
        "slopes": {
            part: {"value": one, "low": between.low, "high": between.high}
            for part, (one, between) in zip(("whole", "first_half", "second_half"), slopes, strict=True)
        },
    }
    evidence = Evidence(
        measure="memory_slope",
        value=value,
        unit="kB/min",
        interval=interval,
        n=len(when),
        method=method,
        details=details,
        volatile=True,
    )
    reason = _said(status, value, interval, limit.value, once=interval.low > 0)
    return CheckResult(check=check, status=status, reason=reason, limit=limit, evidence=evidence)


def _by_minute(value: float, found: Interval) -> tuple[float, Interval]:
    """Return what is in bytes a second in kB a minute."""
    return value * _SCALE, msgspec.structs.replace(found, low=found.low * _SCALE, high=found.high * _SCALE)


def _said(status: Status, value: float, interval: Interval, limit: float, *, once: bool) -> str:
    """Say how memory grows in kB a minute, and what that means."""
    between = f"({level_text(interval.level)} {interval.low:,.0f} to {interval.high:,.0f})"
    grows = f"memory {'leaks: it ' if status == 'failed' else ''}grows by {value:,.0f} kB a minute {between}"
    if status == "failed":
        return f"{grows}, all the time, and {limit:,.0f} may be steps of the allocator"
    if status == "insufficient":
        if once:
            return f"{grows}, but not in both halves of the time: a leak goes on, so look for longer"
        low, high = f"{interval.low:,.0f}", f"{interval.high:,.0f}"
        told = f"memory wanders: it grows by something between {low} and {high} kB a minute"
        return f"{told}, and {limit:,.0f} may be steps of the allocator: look for longer"
    if interval.high <= 0:
        return f"memory does not grow: {value:,.0f} kB a minute {between}"
    if interval.low <= 0:
        return f"memory does not grow: {value:,.0f} kB a minute {between}, which is zero within its noise"
    return f"{grows}; up to {limit:,.0f} may be steps of the allocator, so a slower leak is not seen"
