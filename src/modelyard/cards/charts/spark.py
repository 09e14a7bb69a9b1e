"""Sparklines: the shape of a series in the height of a line of text."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard._kit.text import number
from modelyard.cards.charts.base import ACCENT, Scale, at, frame, is_real, path

__all__ = ["spark"]


def spark(
    values: Sequence[float | None],
    *,
    title: str = "",
    width: float = 96,
    height: float = 24,
    limit: float | None = None,
) -> str:
    """Draw the values as a thin line with a dot at the newest; missing ones leave a gap.

    Args:
        values: The values, oldest first.
        title: What they are; by default their first, last, lowest and highest.
        width: Width in pixels.
        height: Height in pixels.
        limit: A limit, drawn as a dashed line.
    """
    known = [v for v in values if is_real(v)]
    if not known:
        return frame(width, height, "", title=title or "no values", natural=True)
    low, high = min(known), max(known)
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    across, up = Scale(0, max(1, len(values) - 1), 3, width - 4), Scale(low, high, height - 4, 4)
    out = []
    if limit is not None:
        line = f'd="M0 {at(up(limit))}H{at(width)}"'
        out.append(f'<path {line} stroke="currentColor" stroke-opacity="0.45" stroke-dasharray="2 2"/>')
    pieces: list[list[tuple[float, float]]] = [[]]
    for i, value in enumerate(values):
        if not is_real(value):
            pieces.append([])
        else:
            pieces[-1].append((across(i), up(value)))
    for piece in pieces:
        if len(piece) > 1:
            out.append(f'<path d="{path(piece)}" fill="none" stroke="{ACCENT}" stroke-width="1.5"/>')
        elif piece:
            out.append(f'<circle cx="{at(piece[0][0])}" cy="{at(piece[0][1])}" r="1.5" fill="{ACCENT}"/>')
    x, y = next(piece[-1] for piece in reversed(pieces) if piece)
    out.append(f'<circle cx="{at(x)}" cy="{at(y)}" r="2.5" fill="{ACCENT}"/>')
    said = title or (
        f"{number(known[0])} to {number(known[-1])}, lowest {number(min(known))}, highest {number(max(known))}"
    )
    return frame(width, height, "".join(out), title=said, natural=True)
