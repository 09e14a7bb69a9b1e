"""The highest rate that an endpoint holds, against a limit or against the last time it was measured."""

from __future__ import annotations

from modelyard.checks.verdict import holds
from modelyard.records import Check, CheckResult, Evidence, Limit, Status

__all__ = ["capacity"]


def capacity(
    knee: Evidence,
    *,
    at_least: float | None = None,
    share: float | None = None,
    last: float | None = None,
    name: str = "load.knee",
) -> CheckResult:
    """Judge a knee.

    Args:
        knee: What was measured: `value` is requests a second, none where no rate held.
        at_least: Requests a second that it must be.
        share: Share of the last knee that it must be, above 0.
        last: The knee of the last time, on the same machine and by the same limits; none: there was none.
        name: Name of the check.
    """
    check = Check(name=name, type="load", params={"at_least": at_least, "share": share}, blocking=False)
    least = at_least if at_least is not None else share * last if share is not None and last is not None else None
    limit = Limit(op="at_least", value=least, unit="1/s") if least is not None else None
    status: Status = "passed"
    if knee.value is None:
        return CheckResult(check=check, status="failed", reason="no rate held the limits", limit=limit, evidence=knee)
    reason = f"{knee.value:,.0f} requests a second"
    if last is not None:
        reason += f", {knee.value / last:.0%} of the last time ({last:,.0f})"
    if limit is not None:
        good = holds(knee.value, limit)
        status = "passed" if good else "failed"
        reason += f"; {'at least' if good else 'below'} {limit.value:,.0f}"
    elif share is not None:
        status = "skipped"
        reason += "; there is nothing to compare with yet"
    return CheckResult(check=check, status=status, reason=reason, limit=limit, evidence=knee)
