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
    times: Sequence[float], sizes: Sequence[float], *, name: str = "load.memory", most: float = 2**20, requests: int = 0
) -> CheckResult:
    """Hold the growth of memory against a limit: it leaks where even the lower bound of its slope is above that.

    A process takes memory from the system in steps, of which some come late. So growth counts as a leak only from
    `most` bytes on over the whole time: the longer one looks, the slower a leak is found.

    Args:
        times: Seconds, ascending; a fifth of them is left to caches to fill.
        sizes: Bytes.
        name: Name of the check.
        most: Bytes that may come on top over the whole time.
        requests: Requests that were answered meanwhile.
    """
    import numpy as np

    check = Check(name=name, type="load", params={"most_bytes": most}, blocking=False)
    first = int(len(times) * _FIRST)
    when, what = np.asarray(times, float)[first:], np.asarray(sizes, float)[first:]
    spans = min(_SPANS, len(when) // 2)
    details: dict[str, Any] = {"requests": requests, "samples": len(when)}
    if spans < FEWEST:
        reason = f"{len(when)} samples tell too little about a slope; it needs {2 * FEWEST}"
        found = Evidence(measure="memory_slope", value=None, unit="kB/min", n=len(when), method=_METHOD, volatile=True)
        return CheckResult(check=check, status="insufficient", reason=reason, limit=None, evidence=found)
    lasted = float(when[-1] - when[0])
    middle = [float(np.median(part)) for part in np.array_split(when, spans)]
    value, interval = slope(middle, [float(np.median(part)) for part in np.array_split(what, spans)])
    scale = 60 / 1000
    limit = Limit(op="at_most", value=most / lasted * scale, unit="kB/min")
    interval = Interval(
        low=interval.low * scale, high=interval.high * scale, level=interval.level, method=interval.method
    )
    details |= {"seconds": lasted, "begins_bytes": float(np.median(what[:spans])), "ends_bytes": float(what[-1])}
    leaks = interval.low > limit.value
    said = (
        f"{value * scale:,.0f} kB a minute ({level_text(interval.level)} {interval.low:,.0f} to {interval.high:,.0f})"
    )
    verdict = "memory leaks: it grows by" if leaks else "memory does not leak: it grows by"
    evidence = Evidence(
        measure="memory_slope",
        value=value * scale,
        unit="kB/min",
        interval=interval,
        n=len(when),
        method=_METHOD,
        details=details,
        volatile=True,
    )
    reason = f"{verdict} {said}, and {limit.value:,.0f} may be steps of the allocator"
    return CheckResult(
        check=check, status="failed" if leaks else "passed", reason=reason, limit=limit, evidence=evidence
    )
