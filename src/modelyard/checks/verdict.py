"""From numbers to a verdict: the check as a record, how numbers read in a reason, and what holds a limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from modelyard._kit.errors import UserError
from modelyard.records import Check, Interval, Limit

__all__ = ["check_of", "figures", "finite", "holds", "level_text", "limit_of", "side", "spread"]

# Two sums of the same numbers in another order differ by this much.
_ROUNDING = 1e-12


def check_of(check: Check | Mapping[str, Any]) -> Check:
    """Return a check as a record, whether it comes as one or as plain JSON."""
    return check if isinstance(check, Check) else msgspec.convert(dict(check), Check)


def limit_of(check: Check, *, unit: str = "") -> Limit:
    """Return the one limit of a check's parameters.

    Raises:
        UserError: There is none, or two (`check-limit`).
    """
    ops: tuple[Literal["at_least", "at_most"], ...] = ("at_least", "at_most")
    given = [(op, check.params[op]) for op in ops if check.params.get(op) is not None]
    if len(given) != 1:
        raise UserError(
            "check-limit",
            f"check `{check.name}` has {'no limit' if not given else 'two limits'}",
            where=f"checks.{check.name}",
            hint="give `at_least` or `at_most`",
        )
    op, value = given[0]
    return Limit(op=op, value=float(value), unit=unit)


def holds(value: float, limit: Limit) -> bool:
    """Say whether a value is on the good side of a limit; a difference by rounding does not count."""
    slack = _ROUNDING * max(1.0, abs(limit.value))
    if limit.op == "at_least":
        return value >= limit.value - slack
    if limit.op == "at_most":
        return value <= limit.value + slack
    return abs(value - limit.value) <= slack


def side(interval: Interval, limit: Limit) -> float:
    """Return the bound of an interval that is on the bad side of a limit."""
    return interval.low if limit.op == "at_least" else interval.high


def finite(value: Any) -> float | None:
    """Return a number as a plain float; none if it is not finite, because JSON has no word for that."""
    number = float(value)
    return number if number - number == 0 else None


def figures(*values: float) -> list[str]:
    """Return numbers as they read in one sentence: a few decimals, and more where two different ones would look alike.

    >>> figures(0.8), figures(0.912345, 1234.5), figures(0.79999, 0.8), figures(0.0), figures(-0.00031)
    (['0.80'], ['0.9123', '1,234'], ['0.79999', '0.80'], ['0.00'], ['-0.00031'])
    """
    for more in (0, 1, 3, 6, 9):
        texts = [_figure(value, more) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _figure(value: float, more: int) -> str:
    size = abs(value)
    if 0 < size < 0.001:
        return f"{value:.{2 + more}g}"
    decimals = next((d for d, top in ((4, 1), (3, 10), (2, 100), (1, 1000)) if size < top), 0) + more
    whole, _, fraction = f"{value:,.{decimals}f}".partition(".")
    if decimals < 2:
        return f"{whole}.{fraction}" if fraction else whole
    return f"{whole}.{fraction.rstrip('0'):0<2}"


def level_text(level: float) -> str:
    """Return a confidence as `95 %`."""
    return f"{level * 100:g} %"


def spread(interval: Interval | None) -> str:
    """Return ` (95 % from 0.76 to 0.82)`, or nothing without an interval."""
    if interval is None:
        return ""
    low, high = figures(interval.low, interval.high)
    return f" ({level_text(interval.level)} from {low} to {high})"
