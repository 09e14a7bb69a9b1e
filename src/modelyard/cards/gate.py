"""The verdict of the gate, counted from the results of the checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from modelyard.records import Status
from modelyard.records.check import may_go_on

__all__ = ["gate_of"]


def gate_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the verdict over recorded results: `passed`, or `failed` if a blocking one is not met.

    Args:
        results: Digest -> result as plain JSON.

    Examples:
        >>> gate_of({"a": {"status": "failed", "check": {"blocking": False}}})["status"]
        'passed'
    """
    counts = dict.fromkeys(get_args(Status), 0)
    stopped = False
    for result in results.values():
        status = str(result.get("status"))
        counts[status] = counts.get(status, 0) + 1
        stopped = stopped or not may_go_on(status, blocking=result.get("check", {}).get("blocking", True))
    return {
        "kind": "gate",
        "name": "gate",
        "status": "failed" if stopped else "passed",
        "checks": len(results),
        **counts,
        "results": sorted(results),
    }
