"""Charts out of evidence: plain data for `cards.charts`, made the same way each time, so that it can be checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelyard.cards.facts import Source, to_json
from modelyard.cards.tables import Span, group_rows, importance_rows, row_paths
from modelyard.cards.words import measure_title

__all__ = ["chart"]

# A curve of thousands of points looks the same with these, and the card stays small.
_MOST_POINTS = 160
_MOST_BARS = 20
# Of more groups, those farthest from all rows are drawn; the table has every one.
_MOST_GROUPS = 16

Chart = dict[str, Any]


def chart(figure: str, source: Source) -> Chart | None:
    """Return the data of a chart of a piece of evidence, or none where the evidence does not have it.

    Args:
        figure: What is to be drawn: one of `_MAKERS`; `rates.NAME.groups` or `rates.NAME.pairs` for a rate.
        source: The evidence.
    """
    name, _, rest = figure.partition(".")
    maker = _MAKERS.get(name)
    data = maker(source, rest) if maker else None
    return to_json({**data, "figure": figure}) if data else None


def _thin(values: Sequence[Any]) -> list[Any]:
    """Return the first, the last and evenly spaced ones between."""
    if len(values) <= _MOST_POINTS:
        return list(values)
    last = len(values) - 1
    return [values[round(i * last / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def _series(node: Any, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the curve of a node, or one for each class where the node is a list of them."""
    out = []
    for one in node if isinstance(node, list | tuple) else [node]:
        if isinstance(one, Mapping) and one.get(columns["x"]) and one.get(columns["y"]):
            found = {key: _thin(one[name]) for key, name in columns.items() if one.get(name)}
            out.append({"name": str(one.get("name", "")), **found})
    return out


def _lines(name: str, columns: Mapping[str, str]) -> Callable[[Source, str], Chart | None]:
    def made(source: Source, _: str) -> Chart | None:
        series = _series(source.get(f"details.{name}"), columns)
        return {"name": name, "series": series} if series else None

    return made


def _confusion(source: Source, _: str) -> Chart | None:
    labels, counts = source.get("details.confusion.labels"), source.get("details.confusion.counts")
    return {"name": "confusion", "labels": labels, "counts": counts} if labels and counts else None


def _histogram(source: Source, _: str) -> Chart | None:
    edges, counts = source.get("details.histogram.edges"), source.get("details.histogram.counts")
    if not edges or not isinstance(counts, Mapping):
        return None
    return {
        "name": "histogram",
        "edges": edges,
        "series": [{"name": name, "counts": counts[name]} for name in sorted(counts)],
        # Classes are seldom of one size: as shares both shapes are seen.
        "share": len(counts) > 1,
        "axis": source.get("details.histogram.axis", "Score"),
        "line_at": source.get("details.histogram.threshold"),
    }


def _residuals(source: Source, _: str) -> Chart | None:
    edges, counts = source.get("details.residuals.edges"), source.get("details.residuals.counts")
    if not edges or not counts:
        return None
    series = [{"name": "", "counts": counts}]
    return {"name": "histogram", "edges": edges, "series": series, "axis": "Truth minus prediction"}


def _predicted(source: Source, _: str) -> Chart | None:
    columns = {"x": "predicted", "y": "observed", "low": "low", "high": "high"}
    series = _series(source.get("details.predicted"), columns)
    if not series:
        return None
    return {
        "name": "lines",
        "series": series,
        "x": "Mean prediction",
        "y": "Mean truth",
        "diagonal": True,
        "dots": True,
    }


def _points(source: Source, _: str) -> Chart | None:
    xs, ys = source.get("details.points.predicted"), source.get("details.points.residual")
    if not xs or not ys:
        return None
    points = [list(pair) for pair in zip(xs, ys, strict=True)]
    return {"name": "scatter", "points": points, "x": "Prediction", "y": "Truth minus prediction", "zero": True}


def _importances(source: Source, _: str) -> Chart | None:
    found = [source.get(path) for path in importance_rows(source)[:_MOST_BARS]]
    rows = [{"label": row["feature"], "value": row["importance"]} for row in found]
    metric = str(source.get("details.metric") or "")
    axis = f"Loss of {measure_title(metric)} when shuffled" if metric else "Importance"
    return {"name": "bars", "rows": rows, "axis": axis} if rows else None


def _leaderboard(source: Source, _: str) -> Chart | None:
    rows = []
    for path in row_paths(source, "details.rows"):
        row = source.get(path)
        rows.append(
            {
                "label": str(row.get("family", "")),
                "value": row.get("mean"),
                "dots": list(row.get("scores") or ()),
                "best": bool(row.get("winner")),
                "note": str(row.get("failed") or ""),
            }
        )
    axis = f"{measure_title(str(source.get('measure')))} on each fold"
    return {"name": "leaderboard", "rows": rows, "axis": axis} if rows else None


def _rates(source: Source, rest: str) -> Chart | None:
    name, _, which = rest.partition(".")
    groups = [row for row in group_rows(source) if name in row.rates]
    rows = [
        {
            "label": source.get(f"{row.path}.label"),
            "n": source.get(f"{row.path}.n"),
            **_numbers(source, row.rates[name]),
            "quiet": source.get(row.rates[name].status) == "insufficient",
        }
        for row in groups
        if row.factors == (2 if which == "pairs" else 1)
    ]
    if not rows:
        return None
    whole = next((source.get(row.rates[name].value) for row in groups if not row.factors), None)
    far = sorted(
        range(len(rows)), key=lambda i: (rows[i]["quiet"], -abs((rows[i]["value"] or 0.0) - (whole or 0.0)), i)
    )
    shown = [rows[i] for i in sorted(far[:_MOST_GROUPS])]
    more = len(rows) - len(shown)
    return {"name": "intervals", "rows": shown, "axis": measure_title(name), "reference": whole, "more": more}


def _numbers(source: Source, at: Span) -> dict[str, Any]:
    low, high = (source.get(path) if path else None for path in (at.low, at.high))
    return {"value": source.get(at.value), "low": low, "high": high}


_MAKERS: dict[str, Callable[[Source, str], Chart | None]] = {
    "roc": _lines("roc", {"x": "fpr", "y": "tpr"}),
    "pr": _lines("pr", {"x": "recall", "y": "precision"}),
    "calibration": _lines("calibration", {"x": "predicted", "y": "observed", "low": "low", "high": "high"}),
    "confusion": _confusion,
    "histogram": _histogram,
    "residuals": _residuals,
    "predicted": _predicted,
    "points": _points,
    "importances": _importances,
    "leaderboard": _leaderboard,
    "rates": _rates,
}
