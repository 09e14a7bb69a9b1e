"""Charts as SVG, drawn from plain data without a library.

`base.py` holds scales, ticks, axes and the frame; one file for each family of charts. `draw` draws the chart of a
card's block (`{"name": ..., data}`), and `table` gives the same numbers as a table, for those who would rather read.
`graph.draw` draws the steps of a run.
"""

from __future__ import annotations

from modelyard.cards.charts.bar import bars, leaderboard
from modelyard.cards.charts.base import nice, ticks
from modelyard.cards.charts.hist import histogram
from modelyard.cards.charts.interval import intervals
from modelyard.cards.charts.line import calibration, lines, pr, roc, scatter
from modelyard.cards.charts.matrix import confusion
from modelyard.cards.charts.named import draw, table
from modelyard.cards.charts.spark import spark

__all__ = [
    "bars",
    "calibration",
    "confusion",
    "draw",
    "histogram",
    "intervals",
    "leaderboard",
    "lines",
    "nice",
    "pr",
    "roc",
    "scatter",
    "spark",
    "table",
    "ticks",
]
