"""The quantitative analyses: curves, error rates by group and intersection, importances."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.cards.facts import Source
from modelyard.cards.figures import chart
from modelyard.cards.rows import cell
from modelyard.cards.tables import GroupRow, Span, group_rows, importance_rows
from modelyard.cards.words import RATES, measure_title
from modelyard.records import Block, Fact

__all__ = ["curve_blocks", "group_blocks", "importance_blocks"]

_CURVES = {
    "roc": (
        "ROC curve",
        "True positive rate against false positive rate at every threshold; the dashed line is chance.",
    ),
    "pr": ("Precision and recall", "Precision against recall at every threshold."),
    "calibration": ("Calibration", "Observed share against predicted probability; the dashed line is perfect."),
    "confusion": ("Confusion", "True class against predicted class; the shade is the share of the row."),
    "histogram": ("Scores", "Where the scores of each class lie."),
    "predicted": (
        "Truth by prediction",
        "Mean truth of rows with like predictions, and where the middle 80 % of them lie.",
    ),
    "points": ("Residuals by prediction", "How far some of the test rows were from their prediction."),
    "residuals": ("Residuals", "How far the predictions were from the truth."),
}
# Differences this unlikely by chance, after Holm's adjustment for the number of groups, are named.
_LEVEL = 0.05
_MOST_NAMED = 12
_MOST_IMPORTANCES = 40


def _chart(figure: str, source: Source, title: str, text: str = "") -> list[Block]:
    drawn = chart(figure, source)
    if drawn is None:
        return []
    if drawn.get("more"):
        text = f"{text} Drawn are those farthest from it; the table has the other {drawn['more']:,} too."
    return [Block(type="chart", title=title, text=text, chart=drawn, evidence=source.digest)]


def curve_blocks(source: Source | None) -> list[Block]:
    """Return the charts that the evidence of `curves` has."""
    if source is None:
        return []
    return [block for figure, (title, text) in _CURVES.items() for block in _chart(figure, source, title, text)]


def group_blocks(source: Source | None) -> list[Block]:
    """Return the rates of each group and each intersection, as a table and as charts."""
    if source is None:
        return []
    rows = group_rows(source)
    names = source.get("details.rates") or sorted({name for row in rows for name in row.rates})
    whole = [row for row in rows if not row.factors]
    blocks: list[Block] = []
    for count, which, title in ((1, "groups", "Results by group"), (2, "pairs", "Results by intersection")):
        members = [row for row in rows if row.factors == count]
        if not members:
            continue
        blocks.append(_rate_table(source, title, [*whole, *members], names))
        for name in names:
            text = "The dashed line is the rate of all rows; the line through a dot is its interval."
            blocks += _chart(f"rates.{name}.{which}", source, f"{measure_title(name)}, {title[8:]}", text)
    return [*blocks, *_unlike(source, rows, names)]


def _rate_table(source: Source, title: str, rows: Sequence[GroupRow], names: Sequence[str]) -> Block:
    short = {rate.name: rate.short for rate in RATES}
    header = ["Group", "Rows"]
    for name in names:
        head = short.get(name, measure_title(name))
        header += [head, f"{head} low", f"{head} high", f"{head} status"]
    made = []
    for row in rows:
        label = str(source.get(f"{row.path}.label"))
        cells = [cell(source, f"{label}, name", f"{row.path}.label"), cell(source, f"{label}, rows", f"{row.path}.n")]
        for name in names:
            at, what = row.rates.get(name, Span("")), f"{label}, {measure_title(name).lower()}"
            cells += [
                cell(source, what, at.value),
                cell(source, f"{what}, lower bound", at.low),
                cell(source, f"{what}, upper bound", at.high),
                cell(source, f"{what}, standing", at.status),
            ]
        made.append(tuple(cells))
    return Block(type="table", title=title, header=tuple(header), rows=tuple(made))


def _unlike(source: Source, rows: Sequence[GroupRow], names: Sequence[str]) -> list[Block]:
    """Return the groups whose rate differs from that of all other rows by more than chance."""
    found: list[tuple[float, str, str]] = []
    for row in rows:
        for name in names:
            at = row.rates.get(name)
            p = source.get(at.p) if at and at.p else None
            if at is not None and p is not None and p < _LEVEL:
                found.append((p, f"{source.get(f'{row.path}.label')}, {measure_title(name).lower()}", at.p))
    if not found:
        return []
    facts: list[Fact] = [source.fact(label, path) for _, label, path in sorted(found)[:_MOST_NAMED]]
    more = len(found) - len(facts)
    text = "How likely so large a difference from all other rows is by chance (p, adjusted for the number of groups)."
    text += f" {more:,} more are in the evidence." if more else ""
    return [Block(type="facts", title="Groups that stand apart", text=text, facts=tuple(facts))]


def importance_blocks(source: Source | None) -> list[Block]:
    """Return how much each column counts, as a table and as a chart."""
    rows = importance_rows(source) if source is not None else []
    if source is None or not rows:
        return []
    made = []
    for path in rows[:_MOST_IMPORTANCES]:
        name = str(source.get(f"{path}.feature"))
        made.append(
            (
                cell(source, f"{name}, name", f"{path}.feature"),
                cell(source, f"{name}, importance", f"{path}.importance"),
                cell(source, f"{name}, spread", f"{path}.deviation"),
            )
        )
    header = ("Column", "Importance", "Deviation")
    table = Block(type="table", title="Importance of each column", header=header, rows=tuple(made))
    return [table, *_chart("importances", source, "Importances")]
