"""Small drawings that stand in a row of a table: bars in time, an interval against its limit, a value on a scale.

Coordinates are shares of the width in percent, so that a cell may be as wide as the page lets it. There is no `style`
anywhere: the colours come from the style sheet by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard._kit.text import number

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Column", "bar", "columns", "folds", "interval", "meter", "span"]

# Height of a chart of columns, and room above the highest one and below, in pixels.
_TALL, _TOP, _FOOT = 190.0, 10.0, 6.0


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a chart.

    Attributes:
        value: How high it is.
        label: What it says when it is pointed at.
        href: Page within the site that says more.
        unusual: Whether it stands out.
        usual: What was to be expected; none where that is not known.
    """

    value: float
    label: str
    href: str = ""
    unusual: bool = False
    usual: float | None = None


def _svg(kind: str, label: str, body: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup(f'<svg class="mini {kind}" role="img"><title>{escape(label)}</title>{body}</svg>')  # noqa: S704 - numbers and our own words


def _at(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _place(value: float, low: float, high: float) -> float:
    """Return where a value stands between 3 and 97 percent, so that marks at the ends are whole."""
    if high <= low:
        return 50.0
    return 3 + 94 * min(1.0, max(0.0, (value - low) / (high - low)))


def bar(value: float, longest: float, kind: str, label: str) -> Markup:
    """Draw one bar from zero; `kind` is a status and gives the colour."""
    wide = max(0.8, 100 * value / longest) if longest > 0 and value > 0 else 0
    return _svg("mini-bar", label, f'<rect class="k-{kind}" width="{_at(wide)}%" height="8" y="4" rx="2"/>')


def span(offset: float, seconds: float, whole: float, kind: str, label: str) -> Markup:
    """Draw when something ran within the whole: a bar, or a tick for what took no time."""
    x = min(99.4, 100 * offset / whole) if whole > 0 else 0.0
    wide = min(100 - x, max(0.6, 100 * seconds / whole)) if whole > 0 else 0.6
    line = '<line class="track" x1="0" x2="100%" y1="10" y2="10"/>'
    return _svg(
        "mini-span",
        label,
        f'{line}<rect class="k-{kind}" x="{_at(x)}%" width="{_at(wide)}%" y="4" height="12" rx="2"/>',
    )


def interval(
    value: float | None, low: float | None, high: float | None, bound: float | None, op: str, kind: str
) -> Markup | str:
    """Draw a value with its interval against its limit; the side that passes is shaded."""
    known = [v for v in (value, low, high, bound) if v is not None]
    if value is None or (bound is None and low is None):
        return ""
    if min(known) > 0 and min(known) < 0.5 * max(known):
        # Far apart on one side of zero: only from zero on do their lengths compare.
        known.append(0.0)
    room = (max(known) - min(known)) * 0.2 or abs(known[0]) * 0.1 or 0.1
    ends = min(known) - (0.0 if min(known) == 0 else room), max(known) + room
    out = ['<line class="track" x1="0" x2="100%" y1="11" y2="11"/>']
    if bound is not None:
        x = _place(bound, *ends)
        left, wide = {"at_least": (x, 100 - x), "at_most": (0.0, x)}.get(op, (x, 0.0))
        out.insert(0, f'<rect class="good-side" x="{_at(left)}%" width="{_at(wide)}%" y="1" height="20" rx="2"/>')
        out.append(f'<line class="bound" x1="{_at(x)}%" x2="{_at(x)}%" y1="1" y2="21"/>')
    if low is not None and high is not None:
        a, b = _place(low, *ends), _place(high, *ends)
        out.append(f'<rect class="k-{kind} whisker" x="{_at(a)}%" width="{_at(b - a)}%" y="9" height="4" rx="2"/>')
    out.append(f'<circle class="k-{kind} dot" cx="{_at(_place(value, *ends))}%" cy="11" r="4.5"/>')
    said = number(value)
    if low is not None and high is not None:
        said += f", {number(low)} to {number(high)}"
    if bound is not None:
        said += f"; limit {number(bound)}"
    return _svg("mini-interval", said, "".join(out))


def meter(value: float | None, bound: float | None, whole: float, kind: str) -> Markup:
    """Draw how far a value is along a scale, with a tick at its limit."""
    out = ['<rect class="bed" width="100%" height="8" y="6" rx="2"/>']
    if value is not None and value > 0:
        wide = min(100.0, max(0.6, 100 * value / whole))
        out.append(f'<rect class="k-{kind}" width="{_at(wide)}%" height="8" y="6" rx="2"/>')
    if bound is not None:
        x = _at(min(99.6, 100 * bound / whole))
        out.append(f'<line class="bound" x1="{x}%" x2="{x}%" y1="1" y2="19"/>')
    said = number(value) + (f" of at most {number(bound)}" if bound is not None else "")
    return _svg("mini-meter", said, "".join(out))


def folds(scores: Sequence[float], mean: float | None, low: float, high: float, *, chosen: bool) -> Markup | str:
    """Draw the score of each fold as a dot and their mean as a tick, on a scale that rows share."""
    if not scores or mean is None:
        return ""
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.1
    ends = low - room, high + room
    kind = "chosen" if chosen else "plain"
    out = ['<line class="track" x1="0" x2="100%" y1="11" y2="11"/>']
    out += [f'<circle class="fold {kind}" cx="{_at(_place(one, *ends))}%" cy="11" r="4"/>' for one in scores]
    x = _at(_place(mean, *ends))
    out.append(f'<line class="mean {kind}" x1="{x}%" x2="{x}%" y1="3" y2="19"/>')
    said = f"mean {number(mean)}; folds " + ", ".join(number(one) for one in scores)
    return _svg("mini-folds", said, "".join(out))


def columns(
    found: Sequence[Column], *, title: str, unit: str, limit: float | None = None, ends: tuple[str, str] = ("", "")
) -> Markup:
    """Draw values in a row as columns, with a short line at what is usual and a dashed one at the limit.

    The axis keeps its size in pixels while the columns take what room there is.

    Args:
        found: The columns, in order.
        title: Name of the chart.
        unit: What the values are in.
        limit: Where they should end; left out of the scale where it is more than three times the highest.
        ends: What stands below the first and the last column.
    """
    from markupsafe import Markup, escape

    from modelyard.cards.charts.base import nice, tick_labels, ticks

    top = max([one.value for one in found] + [one.usual or 0.0 for one in found], default=0.0)
    if limit is not None and limit <= 3 * top:
        top = max(top, limit)
    top = nice(0.0, top or 1.0, 4)[1]
    marks = ticks(0.0, top, 4)

    def up(value: float) -> float:
        return _TALL - _FOOT - (_TALL - _FOOT - _TOP) * min(1.0, max(0.0, value / top))

    axis = "".join(
        f'<text x="52" y="{_at(up(value) + 4)}" text-anchor="end">{text}</text>'
        for value, text in zip(marks, tick_labels(marks), strict=True)
    )
    body = [f'<line class="grid" x1="0" x2="100%" y1="{_at(up(v))}" y2="{_at(up(v))}"/>' for v in marks]
    slot = 100 / max(len(found), 12)
    for i, one in enumerate(found):
        x, y = i * slot + slot * 0.14, up(one.value)
        kind = "unusual" if one.unusual else "plain"
        high = max(1.5, _TALL - _FOOT - y) if one.value > 0 else 0.0
        rect = (
            f'<rect class="column {kind}" x="{_at(x)}%" width="{_at(slot * 0.72)}%" y="{_at(_TALL - _FOOT - high)}" '
            f'height="{_at(high)}" rx="1.5"><title>{escape(one.label)}</title></rect>'
        )
        body.append(f'<a href="{escape(one.href)}">{rect}</a>' if one.href.startswith("/") else rect)
        if one.usual is not None:
            level = _at(up(one.usual))
            across = f'x1="{_at(i * slot)}%" x2="{_at((i + 1) * slot)}%"'
            body.append(f'<line class="usual" {across} y1="{level}" y2="{level}"/>')
    if limit is not None and limit <= top:
        body.append(f'<line class="limit" x1="0" x2="100%" y1="{_at(up(limit))}" y2="{_at(up(limit))}"/>')
    below = _TALL + 12
    body.append(f'<text x="0" y="{_at(below)}">{escape(ends[0])}</text>')
    if len(found) > 2 and ends[0] != ends[1]:
        # Below the last column, but never so far left that it meets the other one.
        at = max(55.0, len(found) * slot)
        body.append(f'<text x="{_at(at)}%" y="{_at(below)}" text-anchor="end">{escape(ends[1])}</text>')
    return Markup(  # noqa: S704 - every text was escaped
        f'<div class="columns-chart"><svg class="mini axis" aria-hidden="true">{axis}</svg>'
        f'<svg class="mini plot" role="group" aria-label="{escape(title)}, in {escape(unit)}">{"".join(body)}</svg>'
        "</div>"
    )
