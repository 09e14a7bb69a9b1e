"""Rows with a length: importances as bars, and candidates with a dot for each fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard._kit.text import number
from modelyard.cards.charts.base import (
    ACCENT,
    BAD,
    QUIET,
    Scale,
    at,
    frame,
    is_real,
    label,
    mark,
    nice,
    tick_labels,
    ticks,
    tip,
)

__all__ = ["bars", "leaderboard"]

WIDTH = 390.0
NAMES = 152.0
VALUES = 52.0


def _span(values: Sequence[float | None], *, zero: bool) -> tuple[float, float]:
    known = [v for v in values if is_real(v)]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    return nice(low, high, 4)


def _ruler(scale: Scale, height: float, axis: str) -> str:
    """Return the grid and the axis below rows; `height` is where the rows end."""
    values = ticks(scale.low, scale.high, 4)
    out = []
    for value, text in zip(values, tick_labels(values), strict=True):
        x = scale(value)
        out.append(f'<path d="M{at(x)} 4V{at(height)}" stroke="currentColor" stroke-opacity="0.14"/>')
        out.append(label(x, height + 14, text, anchor="middle", size=11, quiet=True))
    if axis:
        out.append(label((scale.start + scale.end) / 2, height + 32, axis, anchor="middle", size=11.5))
    return "".join(out)


def bars(rows: Sequence[dict[str, Any]], *, title: str, description: str = "", axis: str = "") -> str:
    """Draw one bar a row, from zero, with the interval as a thin line.

    Args:
        rows: `{"label", "value"}` each, with `low` and `high` where there is an interval.
        title: Name of the chart.
        description: What it shows.
        axis: Name of the axis.
    """
    numbers = [row.get(key) for row in rows for key in ("value", "low", "high")]
    scale = Scale(*_span(numbers, zero=True), NAMES, WIDTH - VALUES - 8)
    step, height = 23.0, 8 + 23.0 * len(rows)
    out = [_ruler(scale, height, axis)]
    origin = scale(0.0)
    for i, row in enumerate(rows):
        y, name, value = 8 + i * step, str(row.get("label", "")), row.get("value")
        out.append(label(NAMES - 8, y + 14, name, anchor="end", width=NAMES - 10))
        if not is_real(value):
            out.append(label(origin + 6, y + 14, "not measured", quiet=True, size=11))
            continue
        x, low, high = scale(value), row.get("low"), row.get("high")
        shape = f'x="{at(min(x, origin))}" y="{at(y + 4)}" width="{at(abs(x - origin))}" height="13" rx="1.5"'
        out.append(mark("rect", tip(name, value, low, high), f'{shape} fill="{ACCENT}" fill-opacity="0.85"'))
        if low is not None and high is not None:
            span = f'd="M{at(scale(low))} {at(y + 10.5)}H{at(scale(high))}"'
            out.append(f'<path {span} stroke="currentColor" stroke-opacity="0.75" stroke-width="1.5"/>')
        out.append(label(WIDTH - 2, y + 14, number(value, digits=3), anchor="end", size=11.5))
    out.append(f'<path d="M{at(origin)} 4V{at(height)}" stroke="currentColor" stroke-opacity="0.5"/>')
    tall = height + (40 if axis else 22)
    return frame(WIDTH, tall, "".join(out), title=title, description=description)


def leaderboard(rows: Sequence[dict[str, Any]], *, title: str, description: str = "", axis: str = "") -> str:
    """Draw the candidates: a dot for each fold, a bar across at the mean, the interval where there is one.

    Args:
        rows: `{"label", "value", "dots": [...]}` each, with `low` and `high`, `best` for the one that was chosen
            and `note` for one that has no value (why it is out).
        title: Name of the chart.
        description: What it shows.
        axis: Name of the metric.
    """
    numbers = [row.get(key) for row in rows for key in ("value", "low", "high")]
    numbers += [dot for row in rows for dot in row.get("dots") or ()]
    scale = Scale(*_span(numbers, zero=False), NAMES, WIDTH - VALUES - 8)
    step, height = 30.0, 8 + 30.0 * len(rows)
    out = [_ruler(scale, height, axis)]
    for i, row in enumerate(rows):
        out.append(_candidate(row, scale, 8 + i * step + step / 2))
    tall = height + (40 if axis else 22)
    return frame(WIDTH, tall, "".join(out), title=title, description=description)


def _candidate(row: dict[str, Any], scale: Scale, y: float) -> str:
    name, value, best = str(row.get("label", "")), row.get("value"), bool(row.get("best"))
    weight, colour = (650, ACCENT) if best else (400, QUIET)
    out = [label(NAMES - 8, y + 4, name, anchor="end", width=NAMES - 10, weight=weight)]
    if not is_real(value):
        note = str(row.get("note") or "no score")
        out.append(label(NAMES + 6, y + 4, note, size=11, width=WIDTH - NAMES - 8, extra=f'fill="{BAD}"'))
        return "".join(out)
    low, high = row.get("low"), row.get("high")
    if low is not None and high is not None:
        span = f'd="M{at(scale(low))} {at(y)}H{at(scale(high))}"'
        out.append(f'<path {span} stroke="{colour}" stroke-opacity="0.5" stroke-width="5" stroke-linecap="round"/>')
    for fold, dot in enumerate(row.get("dots") or (), start=1):
        if is_real(dot):
            place = f'cx="{at(scale(dot))}" cy="{at(y)}" r="3.6" fill="{colour}" fill-opacity="0.55"'
            out.append(mark("circle", tip(f"{name}, fold {fold}", dot), place))
    x = at(scale(value))
    line = f'd="M{x} {at(y - 9)}V{at(y + 9)}" stroke="{colour}" stroke-width="2.5" stroke-linecap="round"'
    out.append(mark("path", tip(name, value, low, high), line))
    out.append(label(WIDTH - 2, y + 4, number(value), anchor="end", size=11.5, weight=weight))
    return "".join(out)
