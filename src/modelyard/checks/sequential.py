"""Compare two versions while outcomes come in, and look as often as you like.

A test made for one look gives false alarms without end when it is looked at after each row. Here the likelihood ratio
of the difference is mixed over a normal prior around none (Robbins 1970); under no difference it exceeds 1 / alpha at
any time with a chance of at most alpha (Ville's inequality). The p-value and the interval made of it hold at every look
at once: Johari, Koomen, Pekelis and Walsh, "Always Valid Inference", Operations Research 70(3), 2022. As there, means
are taken as normal with the variance seen so far, so there is no verdict on a handful of rows: wait for 100 of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Difference", "Sample", "difference", "share_held"]

# Variance of the mixture as a part of the variance of the outcomes: sharpest for a tenth of their standard deviation.
_SCALE = 0.01


@dataclass(frozen=True, slots=True)
class Sample:
    """Outcomes of one version, as what adds up; each field a number, or an array with one entry a look.

    Attributes:
        n: How many.
        mean: Their mean.
        squares: Sum of their squared distances from the mean.
    """

    n: Any = 0
    mean: Any = 0.0
    squares: Any = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """Return the sample of some outcomes."""
        if not values:
            return cls()
        mean = sum(values) / len(values)
        return cls(len(values), mean, sum((value - mean) ** 2 for value in values))

    def __add__(self, other: Sample) -> Sample:
        """Return both together (Chan, Golub and LeVeque 1979); a sample of -1 outcomes takes that one back."""
        n = self.n + other.n
        if not n:
            return Sample()
        apart = other.mean - self.mean
        squares = self.squares + other.squares + apart * apart * self.n * other.n / n
        return Sample(n, self.mean + apart * other.n / n, squares)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the mean of the second version lies above that of the first; numbers, or arrays with one entry a look.

    Attributes:
        value: Second less first.
        low: Lower end of the interval that holds at every look at once.
        high: Its upper end.
        p: Always-valid p-value of no difference, 0 to 1.
    """

    value: Any
    low: Any
    high: Any
    p: Any


def difference(first: Sample, second: Sample, *, alpha: float) -> Difference:
    """Return how far two versions are apart.

    Args:
        first: Outcomes of the one that answers usually, at least 2; of a yes or no, 1 and 0.
        second: Outcomes of the one that is tried, at least 2.
        alpha: Chance that the interval ever misses the true difference, above 0 and below 1.
    """
    import numpy as np

    spread = (first.squares + second.squares) / (first.n + second.n - 2)
    # Outcomes that were all equal so far are not taken for certain.
    spread = np.where(spread > 0, spread, 1.0)
    each = sum((one.squares + spread) / np.square(one.n) for one in (first, second))
    pooled = spread * (1 / first.n + 1 / second.n)
    # The small side's own variance is rough while its outcomes are rare: the larger one keeps the promise.
    variance, scale = np.maximum(each, pooled), _SCALE * spread
    apart, whole = second.mean - first.mean, variance + scale
    half = np.sqrt(variance * whole / scale * (2 * np.log(1 / alpha) + np.log(whole / variance)))
    return Difference(apart, apart - half, apart + half, _mixture(apart, variance, scale))


def share_held(part: Any, whole: Any, share: float) -> Any:
    """Return the always-valid p-value of a part of the requests being the share it should be.

    What chi-square says of one look (a squared distance over its variance, one degree of freedom) holds here at every
    look. A mismatch means that requests were lost or led astray: then no difference can be trusted.

    Args:
        part: Requests that fell to the one, a number or an array.
        whole: All requests, at least 1.
        share: Share of them that should have, above 0 and below 1.
    """
    spread = share * (1 - share)
    return _mixture(part / whole - share, spread / whole, _SCALE * spread)


def _mixture(apart: Any, variance: Any, scale: Any) -> Any:
    """Return the p-value of a distance from 0, mixed over normal differences of the variance `scale`."""
    import numpy as np

    ratio = scale / (variance + scale)
    log = 0.5 * np.log1p(-ratio) + ratio * np.square(apart) / (2 * variance)
    return np.exp(-np.maximum(log, 0.0))
