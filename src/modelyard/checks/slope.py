"""The slope of a series, whatever single values do, and whether memory grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard.checks.verdict import level_text
from modelyard.records import Check, CheckResult, Evidence, Interval, Limit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["FEWEST", "growth", "slope"]

# Of fewer values a slope says nothing.
FEWEST = 8
LEVEL = 0.95
_METHOD = "Theil-Sen slope, interval by Sen (1968), on the medians of 20 spans"
# Memory comes and goes in steps, so neighbours are alike: medians of so many spans are nearly independent.
_SPANS = 20
# The first share of the samples, in which caches fill.
_FIRST = 0.2
# Kilobytes a minute of bytes a second.
_SCALE = 60 / 1000
# Bytes a request below which growth is no leak.
_LEAST = 1.0


def slope(times: Sequence[float], values: Sequence[float], *, level: float = LEVEL) -> tuple[float, Interval]:
    """Return the median slope between all pairs of points, with its interval of confidence.

    A quarter of the values may be anything without moving it far. Source: P. K. Sen, Estimates of the Regression
    Coefficient Based on Kendall's Tau, JASA 63 (1968).

    Args:
        times: When; no two alike.
        values: What was seen then, at least two.
        level: Confidence, in (0, 1).
    """
    from scipy.stats import theilslopes

    found = theilslopes(values, times, alpha=level)
    interval = Interval(low=float(found[2]), high=float(found[3]), level=level, method=_METHOD)
    return float(found[0]), interval


def growth(
    times: Sequence[float],
    sizes: Sequence[float],
    *,
    name: str = "load.memory",
    most: float = 2 * 2**20,
    requests: int = 0,
) -> CheckResult:
    """Hold the growth of memory against a limit, over the whole time and over each half of it.

    A process takes memory from the system in steps, of which some come late, and what it holds wanders. A leak goes on:
    it counts where even the lower bound of the slope is above the limit over the whole time and over either half. The
    limit is `most` bytes over the whole time, or a byte a request where that is more; the longer one looks, the slower
    a leak is found.

    Called leaks, with the default limit, of 1,000 simulated runs of 240 samples: none that was flat; 3 random walks
    without a drift that end 1.3 MB away (16 at 2.6 MB); none with 4 late steps of 256 to 512 kB (32 with 8); all that
    grew by 2.2 MiB on a straight line; 891 that grew by 6 MiB in such a walk of 1.3 MB, and 209 by 3 MiB.

    Args:
        times: Seconds, ascending; a fifth of them is left to caches to fill.
        sizes: Bytes.
        name: Name of the check.
        most: Bytes that may come on top over the whole time.
        requests: Requests that were answered meanwhile.
    """
    import numpy as np

    check = Check(name=name, type="load", params={"most_bytes": most, "most_bytes_a_request": _LEAST}, blocking=False)
    first = int(len(times) * _FIRST)
    when, what = np.asarray(times, float)[first:], np.asarray(sizes, float)[first:]
    spans = min(_SPANS, len(when) // 2)
    if spans < FEWEST:
        reason = f"{len(when)} samples tell too little about a slope; it needs {2 * FEWEST}"
        found = Evidence(measure="memory_slope", value=None, unit="kB/min", n=len(when), method=_METHOD, volatile=True)
        return CheckResult(check=check, status="insufficient", reason=reason, limit=None, evidence=found)
    lasted = float(when[-1] - when[0])
    middles = [float(np.median(part)) for part in np.array_split(when, spans)]
    held = [float(np.median(part)) for part in np.array_split(what, spans)]
    value, interval = _by_minute(middles, held)
    half = spans // 2
    halves = [_by_minute(middles[:half], held[:half]), _by_minute(middles[half:], held[half:])]
    limit = Limit(op="at_most", value=max(most, _LEAST * requests) / lasted * _SCALE, unit="kB/min")
    leaks = all(found.low > limit.value for _, found in [(value, interval), *halves])
    details: dict[str, Any] = {
        "requests": requests,
        "samples": len(when),
        "seconds": lasted,
        "begins_bytes": held[0],
        "ends_bytes": held[-1],
        "halves": [one for one, _ in halves],
    }
    evidence = Evidence(
        measure="memory_slope",
        value=value,
        unit="kB/min",
        interval=interval,
        n=len(when),
        method=_METHOD,
        details=details,
        volatile=True,
    )
    reason = _said(leaks, value, interval, limit.value)
    return CheckResult(
        check=check, status="failed" if leaks else "passed", reason=reason, limit=limit, evidence=evidence
    )


def _by_minute(times: Sequence[float], sizes: Sequence[float]) -> tuple[float, Interval]:
    """Return the slope of bytes by seconds in kB a minute."""
    value, found = slope(times, sizes)
    return value * _SCALE, Interval(
        low=found.low * _SCALE, high=found.high * _SCALE, level=found.level, method=found.method
    )


def _said(leaks: bool, value: float, interval: Interval, limit: float) -> str:
    """Say how memory grows in kB a minute, and what that means."""
    between = f"({level_text(interval.level)} {interval.low:,.0f} to {interval.high:,.0f})"
    if not leaks and value <= 0:
        return f"memory does not grow: {value:,.0f} kB a minute {between}"
    grows = f"memory {'leaks: it ' if leaks else ''}grows by {value:,.0f} kB a minute {between}"
    if leaks:
        return f"{grows}, all the time, and {limit:,.0f} may be steps of the allocator"
    if interval.low > limit:
        return f"{grows}, but not in both halves of the time: a leak goes on"
    return f"{grows}; up to {limit:,.0f} may be steps of the allocator, so a slower leak is not seen"
