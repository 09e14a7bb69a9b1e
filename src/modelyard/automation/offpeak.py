"""Choose the cheapest start: outside the windows to avoid, inside the preferred ones, where an hour costs least.

Both the time outside `prefer` and the cost of a run are piecewise linear in its start, and bend only where its start or
its end meets a border of a window or a step of the table. So the best start is one of finitely many, and it is found
exactly by trying them all.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard._kit.times import Rates, Span, Windows, length, said
from modelyard._kit.times.room import rooms

__all__ = ["Choice", "choose"]

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Choice:
    """When to start, and why.

    Attributes:
        start: When, seconds since 1970 UTC.
        until: Up to when the start may be put off, in the same free stretch.
        takes: How long it is expected to take, seconds.
        why: In words.
        drop: Why it cannot start at all; empty: it can.
        cost: What it costs then, price times hours; none without prices.
        cost_now: What it would cost at once.
        unit: Of both.
    """

    start: float
    until: float
    takes: float
    why: str = ""
    drop: str = ""
    cost: float | None = None
    cost_now: float | None = None
    unit: str = ""

    @property
    def saved(self) -> float | None:
        """What is saved against starting at once; below nothing where a window or the deadline made it dearer."""
        return None if self.cost is None or self.cost_now is None else self.cost_now - self.cost

    @property
    def payload(self) -> dict[str, Any]:
        """The choice as plain JSON, for the fire and for the steps that read it."""
        body: dict[str, Any] = {"start": self.start, "takes": self.takes, "why": self.why}
        if self.cost is not None:
            body |= {"cost": self.cost, "cost_now": self.cost_now, "saved": self.saved, "unit": self.unit}
        return body


def choose(
    earliest: float,
    latest: float,
    takes: float,
    *,
    avoid: Windows,
    prefer: Windows,
    rates: Rates | None = None,
    deadline: float | None = None,
) -> Choice:
    """Return the best start of a run: least time outside `prefer`, then least cost, then earliest.

    Where no start fits before the deadline, the first one that still lies before it is taken, though the run will end
    too late: late is better than not at all. Never is a run at work in a window to avoid.

    Args:
        earliest: When it may start at first, seconds since 1970 UTC.
        latest: When it may start at last.
        takes: How long it takes, seconds.
        avoid: Windows in which it is never at work.
        prefer: Windows in which it rather is.
        rates: What an hour costs. A start for which it knows no price is taken only where there is no other.
        deadline: When it must have ended, where that is declared.
    """
    found = rooms(avoid, takes, earliest, latest)
    late = ""
    if not found and deadline is not None:
        found = rooms(avoid, takes, earliest, deadline - 1.0)[:1]
        found = [(first, first) for first, _ in found]
        late = f"ends after its deadline {said(deadline, avoid.zone)}"
    if not found:
        return Choice(earliest, earliest, takes, drop=_why_not(earliest, latest, takes, avoid, deadline))
    end = found[-1][1] + takes
    area = _Area(rates.steps(earliest, end)) if rates else _Area(())
    inside = _Area([(a, b, 1.0) for a, b in prefer.spans(earliest, end)])
    tried = sorted(_candidates(found, takes, [*area.borders, *inside.borders]))

    def outside(start: float) -> float:
        return round(takes - inside.of(start, start + takes), 3) if prefer.week else 0.0

    def priced(start: float) -> bool:
        return rates is not None and rates.covers(start, start + takes)

    def rank(start: float) -> tuple[float, bool, float, float]:
        known = priced(start)
        # What differs by less than can be reckoned is equal, and of equals the earliest is best.
        return outside(start), not known, round(area.of(start, start + takes) / _HOUR, 9) if known else 0.0, start

    best = min(tried, key=rank)
    until = next(last for first, last in found if first <= best <= last)
    cost = area.of(best, best + takes) / _HOUR if priced(best) else None
    cost_now = area.of(earliest, earliest + takes) / _HOUR if priced(earliest) else None
    unit = rates.cost_unit if rates and cost is not None else ""
    why = late or _why(best, earliest, found, outside, cost, cost_now)
    if rates is not None and cost is None:
        why += f"; the table has no price for it: it goes from {said(rates.begin, avoid.zone)} "
        why += f"to {said(rates.end, avoid.zone)}"
    return Choice(best, until, takes, why=why, cost=cost, cost_now=cost_now, unit=unit)


class _Area:
    """The area under steps, up to any moment."""

    def __init__(self, steps: Iterable[tuple[float, float, float]]) -> None:
        self._begins: list[float] = []
        self._steps: list[tuple[float, float, float, float]] = []
        total = 0.0
        for begin, end, height in steps:
            self._begins.append(begin)
            self._steps.append((begin, end, height, total))
            total += (end - begin) * height

    @property
    def borders(self) -> list[float]:
        """Where a step begins or ends."""
        return sorted({border for begin, end, _, _ in self._steps for border in (begin, end)})

    def of(self, begin: float, end: float) -> float:
        """Return the area between two moments."""
        return self._upto(end) - self._upto(begin)

    def _upto(self, at: float) -> float:
        place = bisect_right(self._begins, at) - 1
        if place < 0:
            return 0.0
        begin, end, height, before = self._steps[place]
        return before + (min(at, end) - begin) * height


def _candidates(found: Sequence[Span], takes: float, borders: Sequence[float]) -> set[float]:
    """Return the starts at which a cost may be least: ends of the rooms, and where start or end meets a border."""
    tried = {at for room in found for at in room}
    for border in borders:
        for at in (border, border - takes):
            place = bisect_right(found, (at, float("inf"))) - 1
            if place >= 0 and at <= found[place][1]:
                tried.add(at)
    return tried


def _why(best: float, earliest: float, found: Sequence[Span], outside: Any, cost: Any, cost_now: Any) -> str:
    if best == earliest:
        return "at once"
    reasons = []
    if found[0][0] > earliest:
        reasons.append("outside `avoid`")
    if outside(best) < outside(found[0][0]):
        reasons.append("inside `prefer`")
    if cost is not None and (cost_now is None or cost < cost_now):
        reasons.append("where it is cheapest")
    return f"waits {length(best - earliest)}: {' and '.join(reasons) or 'the first start that fits'}"


def _why_not(earliest: float, latest: float, takes: float, avoid: Windows, deadline: float | None) -> str:
    if deadline is not None and earliest >= deadline:
        return f"its deadline {said(deadline, avoid.zone)} has passed"
    if deadline is not None:
        return f"`avoid` leaves no {length(takes)} before its deadline {said(deadline, avoid.zone)}"
    return f"`avoid` leaves no {length(takes)} before it is due again, {said(latest + 1.0, avoid.zone)}"
