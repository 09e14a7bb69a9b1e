"""Curves: ROC, precision and recall, calibration, or any lines over a common axis; and clouds of points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelyard._kit.text import number
from modelyard.cards.charts.base import ACCENT, SERIES, Plot, at, frame, is_real, legend, mark, nice, path

__all__ = ["calibration", "lines", "pr", "roc", "scatter"]

WIDTH, HEIGHT = 390.0, 290.0


def _numbers(rows: Sequence[dict[str, Any]], *keys: str) -> list[float]:
    return [v for row in rows for key in keys for v in row.get(key) or () if is_real(v)]


def lines(
    series: Sequence[dict[str, Any]],
    *,
    title: str,
    description: str = "",
    x: str = "",
    y: str = "",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    dots: bool = False,
) -> str:
    """Draw one line for each series over common axes.

    Args:
        series: `{"name", "x": [...], "y": [...]}` each, with `low` and `high` for a band of confidence.
        title: Name of the chart.
        description: What it shows.
        x: Name of the x axis.
        y: Name of the y axis.
        x_range: Ends of the x axis; taken from the data if not given.
        y_range: The same for the y axis.
        diagonal: Draw the line where x and y are equal (chance, or a perfect model); both axes get one range.
        dots: Mark each point, with its numbers as a tooltip.
    """
    named = [(str(s.get("name", "")), SERIES[i % len(SERIES)]) for i, s in enumerate(series)]
    head, room = legend(named, left=46, width=WIDTH - 58)
    xs, ys = _numbers(series, "x"), _numbers(series, "y", "low", "high")
    if diagonal:
        xs = ys = xs + ys
    plot = Plot(
        WIDTH,
        HEIGHT + room,
        x_range or (nice(min(xs), max(xs)) if xs else (0.0, 1.0)),
        y_range or (nice(min(ys), max(ys)) if ys else (0.0, 1.0)),
        top=12 + room,
    )
    out = [head, plot.axes(x=x, y=y)]
    if diagonal:
        ends = path([(plot.across(plot.x[0]), plot.up(plot.y[0])), (plot.across(plot.x[1]), plot.up(plot.y[1]))])
        out.append(f'<path d="{ends}" stroke="currentColor" stroke-opacity="0.45" stroke-dasharray="4 4"/>')
    for (name, colour), one in zip(named, series, strict=True):
        out.append(_line(plot, one, name, colour, dots=dots))
    return frame(plot.width, plot.height, "".join(out), title=title, description=description)


def _line(plot: Plot, one: dict[str, Any], name: str, colour: str, *, dots: bool) -> str:
    xs, ys = one.get("x") or [], one.get("y") or []
    points = plot.points(xs, ys)
    out = []
    if one.get("low") and one.get("high"):
        around = plot.points(xs, one["low"]) + plot.points(xs, one["high"])[::-1]
        if len(around) > 2:
            out.append(f'<path d="{path(around)}Z" fill="{colour}" fill-opacity="0.16"/>')
    if len(points) > 1:
        line = f'fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"'
        out.append(mark("path", name or "line", f'd="{path(points)}" {line}'))
    if dots or len(points) == 1:
        kept = [(a, b) for a, b in zip(xs, ys, strict=False) if a is not None and b is not None]
        for (px, py), (a, b) in zip(points, kept, strict=False):
            text = f"{name + ': ' if name else ''}{number(a)}, {number(b)}"
            out.append(mark("circle", text, f'cx="{at(px)}" cy="{at(py)}" r="3.5" fill="{colour}"'))
    return "".join(out)


def roc(series: Sequence[dict[str, Any]], *, title: str = "ROC curve", description: str = "") -> str:
    """Draw ROC curves: `x` is the false positive rate, `y` the true positive rate."""
    return lines(
        series,
        title=title,
        description=description or "True positive rate against false positive rate at every threshold.",
        x="False positive rate",
        y="True positive rate",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
    )


def pr(series: Sequence[dict[str, Any]], *, title: str = "Precision and recall", description: str = "") -> str:
    """Draw precision (`y`) against recall (`x`)."""
    return lines(
        series,
        title=title,
        description=description or "Precision against recall at every threshold.",
        x="Recall",
        y="Precision",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
    )


def calibration(series: Sequence[dict[str, Any]], *, title: str = "Calibration", description: str = "") -> str:
    """Draw the observed share (`y`) against the mean predicted probability (`x`) of each bin."""
    return lines(
        series,
        title=title,
        description=description or "Observed share against predicted probability; the dashed line is perfect.",
        x="Predicted probability",
        y="Observed share",
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        diagonal=True,
        dots=True,
    )


def scatter(
    points: Sequence[Sequence[float | None]],
    *,
    title: str,
    description: str = "",
    x: str = "",
    y: str = "",
    zero: bool = False,
) -> str:
    """Draw a cloud of points; `zero` adds the line at y = 0, for residuals."""
    xs = [p[0] for p in points if is_real(p[0])]
    ys = [p[1] for p in points if is_real(p[1])]
    low, high = (min(ys), max(ys)) if ys else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    plot = Plot(WIDTH, HEIGHT, nice(min(xs), max(xs)) if xs else (0.0, 1.0), nice(low, high), left=56)
    out = [plot.axes(x=x, y=y)]
    if zero:
        out.append(
            f'<path d="M{at(plot.left)} {at(plot.up(0))}H{at(plot.width - plot.right)}" '
            'stroke="currentColor" stroke-opacity="0.6" stroke-dasharray="4 4"/>'
        )
    places = plot.points([p[0] for p in points], [p[1] for p in points])
    # A thousand faint points show the density that a hundred strong ones would hide.
    strength = 0.75 if len(places) <= 100 else 0.35
    dots = "".join(f'<circle cx="{at(px)}" cy="{at(py)}" r="2.5"/>' for px, py in places)
    out.append(f'<g fill="{ACCENT}" fill-opacity="{strength}">{dots}</g>')
    return frame(plot.width, plot.height, "".join(out), title=title, description=description)
