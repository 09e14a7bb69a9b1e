"""Stretches of time, and what is left of one when others are taken away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["Span", "overlap", "starts", "union", "without"]

# From a moment to another, the end not included.
Span = tuple[float, float]


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the same time as sorted stretches that do not touch."""
    joined: list[Span] = []
    for begin, end in sorted(s for s in spans if s[0] < s[1]):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def without(whole: Span, spans: Sequence[Span]) -> list[Span]:
    """Return what is left of a stretch when sorted stretches that do not touch are taken away."""
    left: list[Span] = []
    at, end = whole
    for begin, until in spans:
        if until <= at:
            continue
        if begin >= end:
            break
        if begin > at:
            left.append((at, begin))
        at = until
    if at < end:
        left.append((at, end))
    return left


def overlap(begin: float, end: float, spans: Sequence[Span]) -> float:
    """Return how many seconds of a stretch lie in the others, which do not touch."""
    return sum(max(0.0, min(end, until) - max(begin, since)) for since, until in spans)


def starts(free: Iterable[Span], takes: float, earliest: float, latest: float) -> list[Span]:
    """Return from when to when something may start so that it fits whole into one free stretch; ends included.

    Args:
        free: Stretches in which it may run.
        takes: How long it takes, seconds.
        earliest: When it may start at first.
        latest: When it may start at last.
    """
    room = ((max(begin, earliest), min(end - takes, latest)) for begin, end in free)
    return [(first, last) for first, last in room if first <= last]
