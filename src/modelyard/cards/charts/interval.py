"""Intervals: one dot and its bounds a row, so that groups compare at a glance."""

from __future__ import annotations

import math
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

__all__ = ["intervals"]

WIDTH = 390.0
NAMES = 152.0
COUNTS = 56.0


def intervals(
    rows: Sequence[dict[str, Any]],
    *,
    title: str,
    description: str = "",
    axis: str = "",
    reference: float | None = None,
    limit: float | None = None,
    span: tuple[float, float] | None = None,
) -> str:
    """Draw a dot with its interval for each row.

    Args:
        rows: `{"label", "value", "low", "high", "n"}` each; a row without a value says so, with its `note`.
        title: Name of the chart.
        description: What it shows.
        axis: Name of the axis.
        reference: Value of the whole, drawn as a dashed line.
        limit: The limit of a check, drawn as a red line.
        span: Ends of the axis, for charts that stand side by side; taken from the data if not given.
    """
    found = [row.get(key) for row in rows for key in ("value", "low", "high")] + [reference, limit]
    known = [v for v in found if is_real(v)]
    ends = span or (nice(min(known), max(known), 4) if known else (0.0, 1.0))
    scale = Scale(*ends, NAMES, WIDTH - COUNTS - 6)
    # The name of an intersection takes a line for each of its factors.
    names = [str(row.get("label", "")).split(" & ") for row in rows]
    tall_rows = [8 + 14.0 * len(name) for name in names]
    height = 24 + sum(tall_rows)
    out = [label(WIDTH - 2, 12, "rows", anchor="end", size=11, quiet=True)]
    values = ticks(*ends, 4)
    for value, text in zip(values, tick_labels(values), strict=True):
        x = at(scale(value))
        out.append(f'<path d="M{x} 18V{at(height)}" stroke="currentColor" stroke-opacity="0.14"/>')
        out.append(label(scale(value), height + 14, text, anchor="middle", size=11, quiet=True))
    out.append(_upright(scale, height, reference, "all rows", 'stroke="currentColor" stroke-dasharray="4 3"'))
    out.append(_upright(scale, height, limit, "limit", f'stroke="{BAD}"'))
    y = 24.0
    for row, name, room in zip(rows, names, tall_rows, strict=True):
        out.append(_row(row, name, scale, y + room / 2))
        y += room
    if axis:
        out.append(label((scale.start + scale.end) / 2, height + 32, axis, anchor="middle", size=11.5))
    tall = height + (40 if axis else 22)
    return frame(WIDTH, tall, "".join(out), title=title, description=description)


def _upright(scale: Scale, height: float, value: float | None, name: str, look: str) -> str:
    if not is_real(value):
        return ""
    return mark("path", tip(name, value), f'd="M{at(scale(value))} 18V{at(height)}" {look} stroke-opacity="0.8"')


def _row(row: dict[str, Any], names: Sequence[str], scale: Scale, y: float) -> str:
    name, value, n = " & ".join(names), row.get("value"), row.get("n")
    first = y + 4 - 7 * (len(names) - 1)
    size = 12 if len(names) == 1 else 11
    out = [
        label(NAMES - 10, first + 14 * i, line, anchor="end", width=NAMES - 12, size=size)
        for i, line in enumerate(names)
    ]
    if n is not None:
        out.append(label(WIDTH - 2, y + 4, number(n), anchor="end", size=11, quiet=True))
    low, high = row.get("low"), row.get("high")
    if not is_real(value):
        out.append(label(NAMES + 4, y + 4, str(row.get("note") or "too few rows"), size=11, quiet=True))
        return "".join(out)
    colour = QUIET if row.get("quiet") else ACCENT
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        bounds = f'd="M{at(scale(low))} {at(y)}H{at(scale(high))}"'
        out.append(f'<path {bounds} stroke="{colour}" stroke-width="3" stroke-opacity="0.45" stroke-linecap="round"/>')
    dot = f'cx="{at(scale(value))}" cy="{at(y)}" r="4.2" fill="{colour}"'
    out.append(mark("circle", tip(name, value, low, high), dot))
    return "".join(out)
