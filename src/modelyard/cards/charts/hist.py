"""Histograms: one or more distributions over common bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard._kit.text import number
from modelyard.cards.charts.base import SERIES, Plot, at, frame, legend, mark, nice

__all__ = ["histogram"]

WIDTH, HEIGHT = 390.0, 250.0


def histogram(
    edges: Sequence[float],
    series: Sequence[dict[str, Any]],
    *,
    title: str,
    description: str = "",
    axis: str = "",
    share: bool = False,
    line_at: float | None = None,
) -> str:
    """Draw the counts of each bin; several series stand in one another's light, each see-through.

    Args:
        edges: Borders of the bins, one more than there are counts.
        series: `{"name", "counts": [...]}` each.
        title: Name of the chart.
        description: What it shows.
        axis: Name of the x axis.
        share: Draw each series as shares of its own total, so that small and large ones compare.
        line_at: Where to draw a line, e.g. the threshold of the decision.
    """
    heights = [_heights(one.get("counts") or [], share=share) for one in series]
    top = max((h for row in heights for h in row), default=1.0) or 1.0
    named = [(str(s.get("name", "")), SERIES[i % len(SERIES)]) for i, s in enumerate(series)]
    head, room = legend(named, left=52, width=WIDTH - 64)
    ends = (edges[0], edges[-1]) if len(edges) > 1 else (0.0, 1.0)
    plot = Plot(WIDTH, HEIGHT + room, ends, (0.0, nice(0.0, top)[1]), left=54, top=12 + room)
    out = [head, plot.axes(x=axis, y="Share of rows" if share else "Rows", x_grid=False)]
    faint = 0.85 if len(series) == 1 else 0.5
    for (name, colour), one, row in zip(named, series, heights, strict=True):
        for i, (count, tall) in enumerate(zip(one.get("counts") or [], row, strict=True)):
            if not count:
                continue
            left, right, y = plot.across(edges[i]), plot.across(edges[i + 1]), plot.up(tall)
            text = f"{name + ', ' if name else ''}{number(edges[i])} to {number(edges[i + 1])}: {number(count)}"
            shape = f'x="{at(left + 0.5)}" y="{at(y)}" width="{at(max(0.6, right - left - 1))}"'
            tall_px = f'height="{at(plot.up(0) - y)}"'
            out.append(mark("rect", text, f'{shape} {tall_px} fill="{colour}" fill-opacity="{faint}"'))
    if line_at is not None:
        x = at(plot.across(line_at))
        line = f'd="M{x} {at(plot.top)}V{at(plot.up(0))}" stroke="currentColor" stroke-dasharray="4 3"'
        out.append(mark("path", f"at {number(line_at)}", line))
    return frame(plot.width, plot.height, "".join(out), title=title, description=description)


def _heights(counts: Sequence[float], *, share: bool) -> list[float]:
    total = sum(counts) if share else 1
    return [count / total if total else 0.0 for count in counts]
