"""The one idea: a check measures a subject, compares with a limit and leaves evidence."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from modelyard.records.base import Value

__all__ = ["Check", "CheckResult", "Evidence", "Interval", "Limit", "Status", "may_go_on"]

# `insufficient` = too few rows to say; `skipped` = nothing to compare with yet (no champion).
Status = Literal["passed", "failed", "insufficient", "skipped"]


def may_go_on(status: str, *, blocking: bool) -> bool:
    """Say whether the run may go on: not failed, and not without evidence where evidence was demanded."""
    return status in ("passed", "skipped") or not blocking


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What the measured value is compared with."""

    op: Literal["at_least", "at_most", "equal"]
    value: float
    unit: str = ""

    def __str__(self) -> str:
        sign = {"at_least": "≥", "at_most": "≤", "equal": "="}[self.op]
        return f"{sign} {self.value:g}{' ' + self.unit if self.unit else ''}"


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An interval of confidence.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        level: Confidence, in (0, 1), e.g. 0.95.
        method: How it was made, e.g. `Poisson bootstrap, 1000 replicates`.
    """

    low: float
    high: float
    level: float
    method: str


class Evidence(Value, frozen=True, kw_only=True, tag="evidence"):
    """What was measured, on what, how.

    Attributes:
        measure: Name of the measure, e.g. `roc_auc`.
        value: The measured value; none where there was nothing to measure.
        unit: Unit of the value; empty for a share or a score.
        interval: Interval of confidence, if any.
        n: Rows (or items) measured.
        seed: Seed of whatever was drawn; none where nothing was.
        method: How it was measured, in one line, with its source.
        data: Digests of the tables, filled by the runner.
        model: Digest of the model, filled by the runner.
        code: Digest of the code, filled by the runner.
        details: Everything a chart or a table of the card needs (groups, curves, bins), plain JSON.
        volatile: A timing or the like: measured again it differs, so `verify` compares only its record.
    """

    measure: str
    value: float | None
    unit: str = ""
    interval: Interval | None = None
    n: int = 0
    seed: int | None = None
    method: str = ""
    data: tuple[str, ...] = ()
    model: str = ""
    code: str = ""
    details: dict[str, Any] = {}
    volatile: bool = False


class Check(Value, frozen=True, kw_only=True, tag="check"):
    """What is claimed of a subject.

    Attributes:
        name: Name in the project, unique, e.g. `gap.false_negative_rate`.
        type: Kind of the check, e.g. `gap`.
        params: Settings of that kind.
        blocking: Whether a failure stops the run.
    """

    name: str
    type: str
    params: dict[str, Any] = {}
    blocking: bool = True


class CheckResult(Value, frozen=True, kw_only=True, tag="check_result"):
    """What came out.

    Attributes:
        check: The claim.
        status: `passed`, `failed`, `insufficient` or `skipped`.
        reason: One sentence a person understands, with the numbers in it.
        limit: What the value was compared with, if one number was.
        evidence: What was measured.
    """

    check: Check
    status: Status
    reason: str
    limit: Limit | None
    evidence: Evidence

    @property
    def ok(self) -> bool:
        """Whether the run may go on: not failed, and not without evidence where evidence was demanded."""
        return may_go_on(self.status, blocking=self.check.blocking)
