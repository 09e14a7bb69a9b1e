"""What work used of the machine, and what that costs."""

from __future__ import annotations

import msgspec

__all__ = ["Budget", "Prices", "Usage"]

_HOUR = 3600.0
_GB = 1e9


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a step, a run or anything else used, from the kernel's own accounting.

    Attributes:
        cpu_seconds: CPU time, user and system, with that of child processes.
        gb_seconds: Resident memory in GB (10^9 bytes) times the seconds it was held.
        gpu_seconds: Seconds for which GPUs were leased, summed over the GPUs.
        peak_bytes: Highest resident memory; of two usages together, the higher one.
        read_bytes: Bytes read from disks.
        written_bytes: Bytes written to disks.
    """

    cpu_seconds: float = 0.0
    gb_seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            gb_seconds=self.gb_seconds + other.gb_seconds,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
            read_bytes=self.read_bytes + other.read_bytes,
            written_bytes=self.written_bytes + other.written_bytes,
        )


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine costs; a run records those it was priced with.

    Attributes:
        currency: ISO 4217 code; only shown.
        cpu_hour: Of one core for an hour.
        gb_hour: Of 10^9 bytes of memory for an hour.
        gpu_hour: Of one GPU for an hour.
        gb_read: Of 10^9 bytes read.
        gb_written: Of 10^9 bytes written.
    """

    currency: str = "EUR"
    cpu_hour: float = 0.0
    gb_hour: float = 0.0
    gpu_hour: float = 0.0
    gb_read: float = 0.0
    gb_written: float = 0.0

    def of(self, usage: Usage) -> float:
        """Return what a usage costs, in `currency`."""
        return (
            usage.cpu_seconds / _HOUR * self.cpu_hour
            + usage.gb_seconds / _HOUR * self.gb_hour
            + usage.gpu_seconds / _HOUR * self.gpu_hour
            + usage.read_bytes / _GB * self.gb_read
            + usage.written_bytes / _GB * self.gb_written
        )


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How much a run may cost.

    Attributes:
        prices: What the machine costs.
        per_run: Limit of one run, in `prices.currency`; none: no limit.
        per_month: Limit of a calendar month (UTC) over all runs of the project; none: no limit.
        month_spent: What the runs of this month cost before this one began.
    """

    prices: Prices = Prices()
    per_run: float | None = None
    per_month: float | None = None
    month_spent: float = 0.0

    def over(self, usage: Usage) -> str:
        """Say which limit a run with this usage has passed, in a sentence; an empty text while it is within."""
        spent, unit = self.prices.of(usage), self.prices.currency
        if self.per_run is not None and spent > self.per_run:
            return f"the run has cost {spent:.4g} {unit}; its budget is {self.per_run:.4g}"
        if self.per_month is not None and self.month_spent + spent > self.per_month:
            return f"the month has cost {self.month_spent + spent:.4g} {unit}; its budget is {self.per_month:.4g}"
        return ""
