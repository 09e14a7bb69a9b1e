"""A square of counts: what was true against what was predicted."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard._kit.text import number
from modelyard.cards.charts.base import ACCENT, at, clip, escape, frame, label

__all__ = ["confusion"]

WIDTH = 390.0


def confusion(
    labels: Sequence[str], counts: Sequence[Sequence[float]], *, title: str = "Confusion", description: str = ""
) -> str:
    """Draw a row for each true class and a column for each predicted one, shaded by the share of the row.

    Args:
        labels: Names of the classes, in the order of rows and columns.
        counts: `counts[i][j]`: rows of class `i` that were predicted as `j`.
        title: Name of the chart.
        description: What it shows.
    """
    size = max(1, len(labels))
    left, top = 104.0, 44.0
    cell = min(104.0, (WIDTH - left - 8) / size)
    tall = min(cell, 76.0)
    out = [label(left + cell * size / 2, 14, "Predicted", anchor="middle", size=11.5)]
    out.append(label(2, top - 12, "True class", size=11.5))
    for j, name in enumerate(labels):
        out.append(label(left + cell * (j + 0.5), top - 10, name, anchor="middle", size=11, width=cell - 2, quiet=True))
    for i, name in enumerate(labels):
        y, row = top + tall * i, counts[i]
        out.append(label(left - 8, y + tall / 2 + 4, name, anchor="end", size=11.5, width=left - 10))
        total = sum(row)
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            out.append(_cell(left + cell * j, y, cell, tall, count, share, f"{name} predicted as {labels[j]}"))
    return frame(WIDTH, top + tall * size + 6, "".join(out), title=title, description=description)


def _cell(x: float, y: float, wide: float, tall: float, count: float, share: float, what: str) -> str:
    box = f'x="{at(x + 1)}" y="{at(y + 1)}" width="{at(wide - 2)}" height="{at(tall - 2)}" rx="3"'
    out = [
        f"<g><title>{escape(f'{what}: {number(count)} ({share:.1%} of the row)')}</title>",
        f'<rect {box} fill="currentColor" fill-opacity="0.05"/>',
        # At most 0.6, so that the ink on top of it stays readable in light and in dark.
        f'<rect {box} fill="{ACCENT}" fill-opacity="{0.6 * share:.3f}"/>',
    ]
    text = number(count)
    if clip(text, wide - 6, size=12) == text and tall >= 16:
        middle = y + tall / 2 + (0 if tall >= 44 else 4)
        out.append(label(x + wide / 2, middle, text, anchor="middle", weight=600, size=13 if tall >= 44 else 11))
        if tall >= 44:
            out.append(label(x + wide / 2, middle + 16, f"{share:.1%}", anchor="middle", size=11, quiet=True))
    out.append("</g>")
    return "".join(out)
