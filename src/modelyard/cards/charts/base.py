"""What every chart is made of: escaped text, nice ticks, scales, axes, and the frame around them.

A chart is a string of SVG with no style sheet, no script and no outside address. Its colours are CSS variables with
fallbacks that read on white and on near-black paper, its ink is `currentColor`; so it stands in a page with a strict
Content-Security-Policy, in a mail and on paper alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

from modelyard._kit.digest import digest_of
from modelyard._kit.text import number

__all__ = [
    "ACCENT",
    "BAD",
    "GOOD",
    "QUIET",
    "SERIES",
    "WARN",
    "Plot",
    "Scale",
    "at",
    "clip",
    "escape",
    "frame",
    "is_real",
    "label",
    "legend",
    "mark",
    "nice",
    "path",
    "tick_labels",
    "ticks",
    "tip",
]

ACCENT = "var(--series-1, #4682d2)"
GOOD = "var(--pass, #2c9a6a)"
BAD = "var(--fail, #d4514c)"
WARN = "var(--warn, #c58a1b)"
QUIET = "var(--quiet, #868c96)"
# Middle tones: each has a contrast of at least 3:1 with white and with #14171c.
SERIES = (
    ACCENT,
    "var(--series-2, #cf722c)",
    "var(--series-3, #2c9a6a)",
    "var(--series-4, #9569d0)",
    "var(--series-5, #c95a8c)",
    "var(--series-6, #868c96)",
)

Anchor = Literal["start", "middle", "end"]

# Mean advance of a letter in a wide sans-serif face (DejaVu, Verdana), as a share of its size: what is cut by it fits
# in the narrower ones too.
_ADVANCE = 0.6


def escape(text: object) -> str:
    """Return text that is safe as SVG text and inside a quoted attribute; control characters are dropped."""
    clean = "".join(c for c in str(text) if c >= " " or c == "\n")
    return (
        clean.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#39;")
    )


def at(value: float) -> str:
    """Return a coordinate with at most one decimal.

    >>> at(12.0), at(0.25), at(-0.01)
    ('12', '0.2', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def clip(text: str, width: float, *, size: float = 12) -> str:
    """Cut text with an ellipsis so that it fits in `width` units at this font size."""
    most = max(2, int(width / (size * _ADVANCE)))
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def label(
    x: float,
    y: float,
    text: str,
    *,
    anchor: Anchor = "start",
    size: float = 12,
    weight: int = 400,
    quiet: bool = False,
    width: float = 0,
    extra: str = "",
) -> str:
    """Return a line of text; one that is too wide is set a little smaller, then cut, with the whole as a tooltip."""
    if width and clip(text, width, size=size) != text:
        size -= 1.5
    shown = clip(text, width, size=size) if width else text
    whole = f"<title>{escape(text)}</title>" if shown != text else ""
    parts = [f'x="{at(x)}" y="{at(y)}"']
    if anchor != "start":
        parts.append(f'text-anchor="{anchor}"')
    if size != 12:
        parts.append(f'font-size="{at(size)}"')
    if weight != 400:
        parts.append(f'font-weight="{weight}"')
    if quiet:
        parts.append('fill-opacity="0.68"')
    if extra:
        parts.append(extra)
    return f"<text {' '.join(parts)}>{whole}{escape(shown)}</text>"


def mark(shape: str, tip: str, attributes: str) -> str:
    """Return a shape with a tooltip that also speaks to a screen reader."""
    return f"<{shape} {attributes}><title>{escape(tip)}</title></{shape}>"


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the `d` of a line through the points."""
    return "M" + "L".join(f"{at(x)} {at(y)}" for x, y in points)


def _step(span: float, count: int) -> float:
    rough = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1, 2, 2.5, 5, 10):
        if rough <= factor * power * (1 + 1e-9):
            return factor * power
    return 10 * power


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers within `[low, high]`, about `count` of them.

    >>> ticks(0, 1), ticks(0.83, 0.92, 4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.85, 0.875, 0.9])
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return []
    if high <= low:
        return [low]
    step = _step(high - low, count)
    digits = max(0, 2 - math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, digits) + 0.0 for i in range(first, last + 1)]


def nice(low: float, high: float, count: int = 5) -> tuple[float, float]:
    """Widen a range to whole ticks; a range of one point gets room on both sides.

    >>> nice(0.03, 0.97), nice(5, 5)
    ((0.0, 1.0), (4.5, 5.5))
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    if high <= low:
        room = abs(low) * 0.1 or 1.0
        return low - room, low + room
    step = _step(high - low, count)
    digits = max(0, 2 - math.floor(math.log10(step)))
    return (
        round(math.floor(low / step + 1e-9) * step, digits) + 0.0,
        round(math.ceil(high / step - 1e-9) * step, digits) + 0.0,
    )


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the ticks as text with the same number of decimals; thousands get a comma, millions an `M`.

    >>> tick_labels([0.0, 0.25, 0.5]), tick_labels([0, 2000000]), tick_labels([0, 5000])
    (['0.00', '0.25', '0.50'], ['0', '2M'], ['0', '5,000'])
    """
    top = max((abs(v) for v in values), default=0)
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if top >= size:
            return ["0" if v == 0 else f"{v / (1e3 if letter == 'k' else size):g}{letter}" for v in values]
    decimals = max((len(f"{v:.6f}".rstrip("0").partition(".")[2]) for v in values), default=0)
    if 0 < top < 1e-4:
        return [f"{v:g}" for v in values]
    return [f"{v:,.{decimals}f}" for v in values]


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight line from data (`low` to `high`) to the drawing (`start` to `end`)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where the value stands; a value outside the range stands at its border."""
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Plot:
    """An area with an x and a y axis.

    Attributes:
        width: Width of the whole drawing.
        height: Height of the whole drawing.
        x: Range of the x axis.
        y: Range of the y axis.
        left: Room for the labels of the y axis.
        top: Room for a legend.
        bottom: Room for the labels of the x axis.
        right: Room on the right.
    """

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 46
    top: float = 12
    bottom: float = 42
    right: float = 12

    @property
    def across(self) -> Scale:
        """From data to x."""
        return Scale(*self.x, self.left, self.width - self.right)

    @property
    def up(self) -> Scale:
        """From data to y; larger values stand higher."""
        return Scale(*self.y, self.height - self.bottom, self.top)

    def points(self, xs: Sequence[float | None], ys: Sequence[float | None]) -> list[tuple[float, float]]:
        """Return the points of the drawing for pairs of values; pairs with a missing one are left out."""
        across, up = self.across, self.up
        return [(across(x), up(y)) for x, y in zip(xs, ys, strict=False) if is_real(x) and is_real(y)]

    def axes(self, *, x: str, y: str, x_grid: bool = True, y_grid: bool = True) -> str:
        """Return grid lines, tick labels and the names of both axes."""
        across, up = self.across, self.up
        left, right, top, bottom = self.left, self.width - self.right, self.top, self.height - self.bottom
        out = ['<g class="axis" stroke="none">']
        grid = 'stroke="currentColor" stroke-opacity="0.14"'
        xs, ys = ticks(*self.x), ticks(*self.y)
        for value, text in zip(xs, tick_labels(xs), strict=True):
            px = across(value)
            if x_grid:
                out.append(f'<path d="M{at(px)} {at(top)}V{at(bottom)}" {grid}/>')
            out.append(label(px, bottom + 15, text, anchor="middle", size=11, quiet=True))
        for value, text in zip(ys, tick_labels(ys), strict=True):
            py = up(value)
            if y_grid:
                out.append(f'<path d="M{at(left)} {at(py)}H{at(right)}" {grid}/>')
            out.append(label(left - 7, py + 4, text, anchor="end", size=11, quiet=True))
        out.append(
            f'<path d="M{at(left)} {at(bottom)}H{at(right)}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>'
        )
        if x:
            out.append(label((left + right) / 2, self.height - 6, x, anchor="middle", size=11.5))
        if y:
            middle = (top + bottom) / 2
            turn = f'transform="rotate(-90 11 {at(middle)})"'
            out.append(label(11, middle, y, anchor="middle", size=11.5, extra=turn))
        out.append("</g>")
        return "".join(out)


def is_real(value: float | None) -> TypeGuard[float]:
    """Return whether there is a value that can be drawn: not missing, not infinite, not `nan`."""
    return value is not None and math.isfinite(value)


def legend(entries: Sequence[tuple[str, str]], *, left: float, width: float) -> tuple[str, float]:
    """Return the legend (name, colour) as lines of marks, and the height it takes; none for one entry."""
    if len(entries) < 2:
        return "", 0
    out, x, y = [], left, 12.0
    for name, colour in entries:
        shown = clip(name, width - 24, size=11.5)
        room = 18 + len(shown) * 11.5 * _ADVANCE + 18
        if x > left and x + room - 18 > left + width:
            x, y = left, y + 17
        out.append(f'<path d="M{at(x)} {at(y - 4)}h12" stroke="{colour}" stroke-width="3" stroke-linecap="round"/>')
        out.append(label(x + 18, y, shown, size=11.5))
        x += room
    return "".join(out), y + 8


def frame(width: float, height: float, body: str, *, title: str, description: str = "", natural: bool = False) -> str:
    """Return the finished drawing.

    Args:
        width: Width in units of the drawing.
        height: Height in the same units.
        body: What is drawn.
        title: Name of the chart, read aloud first.
        description: What it shows, in a sentence or two.
        natural: Keep the drawing's own size, for those that are scrolled; else it fills its column.
    """
    mine = digest_of([title, description, body])[:10]
    ids = f"t{mine} d{mine}" if description else f"t{mine}"
    desc = f'<desc id="d{mine}">{escape(description)}</desc>' if description else ""
    size = f'width="{at(width)}" height="{at(height)}"' if natural else 'width="100%"'
    return (
        f'<svg class="chart" viewBox="0 0 {at(width)} {at(height)}" {size} role="img" aria-labelledby="{ids}" '
        'fill="currentColor" font-size="12" font-family="var(--sans, system-ui, sans-serif)">'
        f'<title id="t{mine}">{escape(title)}</title>{desc}{body}</svg>'
    )


def tip(name: str, value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return `name: 0.91 (0.89 to 0.93)` for a tooltip."""
    span = f" ({number(low)} to {number(high)})" if low is not None and high is not None else ""
    return f"{name}: {number(value)}{span}" if name else f"{number(value)}{span}"
