"""Tests of differences, and what many of them at once are worth.

In plain `math`: `scipy.stats` has all of them and takes 1.8 s of CPU to import, more than a whole watch does. It is the
oracle in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erfc, exp, inf, lgamma, log, pi, sqrt

__all__ = ["chi_square_tail", "holm", "kolmogorov_tail", "shares_differ"]

# Below this many expected rows of a kind the score test is rough.
_FEW = 10


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the same order.

    The chance that any of them falls below a level without cause is at most that level, however they hang together.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    count = len(p_values)
    adjusted = [0.0] * count
    highest = 0.0
    for rank, at in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def shares_differ(part: int, whole: int, other_part: int, other_whole: int) -> float:
    """Return the p-value of two shares being equal: Fisher's exact test for few rows, else the score test.

    Args:
        part: Rows of the first that count.
        whole: All rows of the first.
        other_part: Rows of the second that count.
        other_whole: All rows of the second.
    """
    if not whole or not other_whole:
        return 1.0
    hits, every = part + other_part, whole + other_whole
    pooled = hits / every
    if pooled in (0.0, 1.0):
        return 1.0
    if min(pooled, 1 - pooled) * min(whole, other_whole) < _FEW:
        return _fisher(part, whole, hits, every)
    z = (part / whole - other_part / other_whole) / sqrt(pooled * (1 - pooled) * (1 / whole + 1 / other_whole))
    return erfc(abs(z) / sqrt(2))


def _fisher(part: int, whole: int, hits: int, every: int) -> float:
    """Return how likely a table is that is no likelier than this one, if its margins are given."""
    low, high = max(0, whole + hits - every), min(whole, hits)
    if high - low > 100_000:  # a share near 0 or 1 of very many rows: all the weight is near the expected count
        middle = round(whole * hits / every)
        low, high = max(low, middle - 50_000), min(high, max(middle + 50_000, part))
    fixed = _log_choose(every, hits)
    logs = [_log_choose(whole, k) + _log_choose(every - whole, hits - k) - fixed for k in range(low, high + 1)]
    # Tables as likely as this one count, whatever rounding says.
    bar = logs[part - low] + 1e-7
    return min(1.0, sum(exp(one) for one in logs if one <= bar))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def chi_square_tail(value: float, freedom: int) -> float:
    """Return the chance that a chi-square variable exceeds `value`.

    Args:
        value: The statistic.
        freedom: Degrees of freedom, at least 1.
    """
    if value <= 0:
        return 1.0
    if value == inf:
        return 0.0
    half = value / 2
    # The tail for 1 or 2 degrees, and then two more degrees a term (integration by parts).
    total = exp(-half) if freedom % 2 == 0 else erfc(sqrt(half))
    power = 1.0 if freedom % 2 == 0 else 0.5
    while power < freedom / 2:
        total += exp(-half + power * log(half) - lgamma(power + 1))
        power += 1.0
    return min(1.0, total)


def kolmogorov_tail(distance: float, n: int, m: int) -> float:
    """Return the p-value of a two-sample Kolmogorov-Smirnov distance, with Stephens' correction for few rows.

    Args:
        distance: Largest difference of the two shares below a value.
        n: Rows of one sample.
        m: Rows of the other.
    """
    if not n or not m or distance <= 0:
        return 1.0
    root = sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * distance
    if x < 1.18:
        # The same function by a series that converges where the other does not.
        return max(0.0, 1 - sqrt(2 * pi) / x * sum(exp(-((2 * j - 1) ** 2) * pi**2 / (8 * x * x)) for j in (1, 2, 3)))
    return min(1.0, 2 * (exp(-2 * x * x) - exp(-8 * x * x) + exp(-18 * x * x) - exp(-32 * x * x)))
