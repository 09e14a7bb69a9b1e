"""Charts by name: what a card's block carries, as a drawing and as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelyard.cards.charts.bar import bars, leaderboard
from modelyard.cards.charts.hist import histogram
from modelyard.cards.charts.interval import intervals
from modelyard.cards.charts.line import calibration, lines, pr, roc, scatter
from modelyard.cards.charts.matrix import confusion

__all__ = ["draw", "table"]

Cell = str | float | int | None
Table = tuple[list[str], list[list[Cell]]]
Drawer = Callable[[dict[str, Any], str, str], str]


def _curve_table(chart: dict[str, Any], x: str, y: str) -> Table:
    rows: list[list[Cell]] = []
    several = len(chart["series"]) > 1
    for one in chart["series"]:
        for a, b in zip(one["x"], one["y"], strict=False):
            rows.append([str(one.get("name", "")), a, b] if several else [a, b])
    return (["Curve", x, y] if several else [x, y]), rows


def _row_table(chart: dict[str, Any], name: str, value: str) -> Table:
    rows = chart["rows"]
    bounded = any(row.get("low") is not None for row in rows)
    counted = any(row.get("n") is not None for row in rows)
    header = [name, value] + (["Low", "High"] if bounded else []) + (["Rows"] if counted else [])
    out: list[list[Cell]] = []
    for row in rows:
        cells: list[Cell] = [str(row.get("label", "")), row.get("value")]
        cells += [row.get("low"), row.get("high")] if bounded else []
        cells += [row.get("n")] if counted else []
        out.append(cells)
    return header, out


def _leaderboard_table(chart: dict[str, Any]) -> Table:
    folds = max((len(row.get("dots") or ()) for row in chart["rows"]), default=0)
    header = ["Candidate", str(chart.get("axis") or "Score"), *(f"Fold {i + 1}" for i in range(folds))]
    out: list[list[Cell]] = []
    for row in chart["rows"]:
        dots = list(row.get("dots") or ())
        out.append([str(row.get("label", "")), row.get("value"), *dots, *[None] * (folds - len(dots))])
    return header, out


def _histogram_table(chart: dict[str, Any]) -> Table:
    edges, series = chart["edges"], chart["series"]
    header = ["From", "To", *(str(s.get("name") or "Rows") for s in series)]
    counts = [s["counts"] for s in series]
    return header, [[edges[i], edges[i + 1], *(c[i] for c in counts)] for i in range(len(edges) - 1)]


def _confusion_table(chart: dict[str, Any]) -> Table:
    labels = [str(name) for name in chart["labels"]]
    rows = [[name, *counts] for name, counts in zip(labels, chart["counts"], strict=True)]
    return ["True class", *(f"predicted {name}" for name in labels)], rows


def _pick(
    function: Callable[..., str], first: tuple[str, ...], *options: str
) -> Callable[[dict[str, Any], str, str], str]:
    """Return a drawer that hands the chart's fields to `function`."""

    def drawn(chart: dict[str, Any], title: str, description: str) -> str:
        given = {key: chart[key] for key in options if chart.get(key) is not None}
        return function(*(chart[key] for key in first), title=title, description=description, **given)

    return drawn


_DRAW: dict[str, Drawer] = {
    "roc": _pick(roc, ("series",)),
    "pr": _pick(pr, ("series",)),
    "calibration": _pick(calibration, ("series",)),
    "lines": _pick(lines, ("series",), "x", "y", "diagonal", "dots"),
    "scatter": _pick(scatter, ("points",), "x", "y", "zero"),
    "bars": _pick(bars, ("rows",), "axis"),
    "leaderboard": _pick(leaderboard, ("rows",), "axis"),
    "histogram": _pick(histogram, ("edges", "series"), "axis", "share", "line_at"),
    "intervals": _pick(intervals, ("rows",), "axis", "reference", "limit", "span"),
    "confusion": _pick(confusion, ("labels", "counts")),
}

_TABLE: dict[str, Callable[[dict[str, Any]], Table]] = {
    "roc": lambda c: _curve_table(c, "False positive rate", "True positive rate"),
    "pr": lambda c: _curve_table(c, "Recall", "Precision"),
    "calibration": lambda c: _curve_table(c, "Predicted probability", "Observed share"),
    "lines": lambda c: _curve_table(c, str(c.get("x") or "x"), str(c.get("y") or "y")),
    "scatter": lambda c: ([str(c.get("x") or "x"), str(c.get("y") or "y")], [list(p) for p in c["points"]]),
    "bars": lambda c: _row_table(c, "Name", str(c.get("axis") or "Value")),
    "leaderboard": _leaderboard_table,
    "histogram": _histogram_table,
    "intervals": lambda c: _row_table(c, "Group", str(c.get("axis") or "Value")),
    "confusion": _confusion_table,
}


def draw(chart: dict[str, Any], *, title: str, description: str = "") -> str:
    """Draw the chart of a block.

    Args:
        chart: `{"name": ...}` and the data of that chart, see `_DRAW`.
        title: Name of the chart.
        description: What it shows.

    Raises:
        KeyError: There is no chart of this name, or a field of it is missing.
    """
    return _DRAW[chart["name"]](chart, title, description)


def table(chart: dict[str, Any]) -> Table:
    """Return header and rows with every number that the chart shows."""
    return _TABLE[chart["name"]](chart)
