"""How long an answer takes, against a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard._kit.errors import UserError
from modelyard._kit.fields import parse_duration
from modelyard._kit.text import plural, seconds_text
from modelyard.checks.verdict import check_of, holds
from modelyard.records import Check, CheckResult, Evidence, Limit

__all__ = ["FEWEST", "latency"]

# Of fewer timings, the slowest of a hundred is not known.
FEWEST = 100
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SHARES = ("p99", "p95", "p90", "p50")


def latency(*, latency: Evidence, check: Check | Mapping[str, Any], seed: int = 0) -> CheckResult:
    """Hold the time that 99 of 100 predictions stay below against a limit.

    Args:
        latency: What was timed: `details` hold `p99` (and whichever other is limited) in `unit`, or `value` is the
            99th percentile; `n` is the number of timings.
        check: The check; its parameter is `p99` (or `p95`, `p90`, `p50`): seconds, or text such as `5ms`.
        seed: Not used; nothing is drawn.

    Raises:
        UserError: There is no limit (`check-limit`), or the time has no known unit (`check-unit`).
    """
    claim = check_of(check)
    share = next((name for name in _SHARES if claim.params.get(name) is not None), "")
    if not share:
        raise UserError("check-limit", f"check `{claim.name}` has no limit", hint="give `p99`, e.g. `p99: 5ms`")
    unit = latency.unit or "s"
    if unit not in _SECONDS:
        raise UserError("check-unit", f"a time in `{unit}` cannot be compared", hint=f"use {', '.join(_SECONDS)}")
    allowed = claim.params[share]
    seconds = parse_duration(allowed) if isinstance(allowed, str) else float(allowed)
    measured = latency.details.get(share, latency.value if share == "p99" else None)
    limit = Limit(op="at_most", value=seconds / _SECONDS[unit], unit=unit)
    found = msgspec.structs.replace(latency, value=measured, unit=unit, volatile=True)
    if measured is None or latency.n < FEWEST:
        tell = "tells" if latency.n == 1 else "tell"
        reason = f"{plural(latency.n, 'timing')} {tell} too little about {share}; it needs {FEWEST}"
        return CheckResult(check=claim, status="insufficient", reason=reason, limit=limit, evidence=found)
    good = holds(measured, limit)
    took, bar = _times(measured * _SECONDS[unit], seconds)
    rows = int(latency.details.get("rows", claim.params.get("rows", 1)))
    reason = f"{share} {took} for {plural(rows, 'row')} {'is at most' if good else 'is above'} {bar}"
    return CheckResult(check=claim, status="passed" if good else "failed", reason=reason, limit=limit, evidence=found)


def _times(measured: float, allowed: float) -> tuple[str, str]:
    """Return two times as they read; in more detail where they would look alike."""
    took, bar = seconds_text(measured), seconds_text(allowed)
    if took == bar and measured != allowed:
        return f"{measured * 1e3:.4g} ms", f"{allowed * 1e3:.4g} ms"
    return took, bar
