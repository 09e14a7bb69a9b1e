"""Whether the portable model answers as the trained one does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.checks.verdict import check_of, figures, holds
from modelyard.records import Check, CheckResult, Evidence, Limit

__all__ = ["LIMIT", "parity"]

# A probability that is off by this much moves a row across a threshold once in ten thousand.
LIMIT = 1e-4


def parity(*, parity: Evidence | CheckResult, check: Check | Mapping[str, Any], seed: int = 0) -> CheckResult:
    """Hold the largest difference between the trained model and its portable form against a limit.

    Args:
        parity: What the export measured: `value` is the largest difference over real rows; `details` may hold
            `p99`, `labels_equal` and `format`.
        check: The check; its parameter is `at_most`.
        seed: Not used; nothing is drawn.
    """
    claim = check_of(check)
    found = parity.evidence if isinstance(parity, CheckResult) else parity
    allowed = claim.params.get("at_most")
    limit = Limit(op="at_most", value=float(LIMIT if allowed is None else allowed))
    if found.value is None or not found.n:
        reason = "the portable model was not compared with the trained one"
        return CheckResult(check=claim, status="insufficient", reason=reason, limit=limit, evidence=found)
    good = holds(found.value, limit)
    form = found.details.get("format")
    subject = f"the {form} model" if form else "the portable model"
    shown, bar = figures(found.value, limit.value)
    reason = f"{subject} differs from the trained one by up to {shown} on {found.n:,} rows, "
    reason += f"{'at most' if good else 'above'} {bar}"
    equal = found.details.get("labels_equal")
    if isinstance(equal, int | float) and equal < 1:
        reason += f"; {1 - equal:.2%} of the labels differ"
    return CheckResult(check=claim, status="passed" if good else "failed", reason=reason, limit=limit, evidence=found)
