"""Layered graphs: the steps of a run, with how each stands and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from modelyard.cards.charts.base import ACCENT, BAD, GOOD, QUIET, WARN, at, clip, escape, frame, label
from modelyard.cards.charts.layout import Layout, lay_out

__all__ = ["draw"]

# Node, gap between layers and gap between neighbours, in pixels.
NODE_WIDE, NODE_TALL = 168.0, 44.0
_PAD = 10.0

# Status -> colour and a sign, so that it is told without colour too.
_LOOK = {
    "succeeded": (GOOD, "✓"),
    "passed": (GOOD, "✓"),
    "cached": (GOOD, "↺"),
    "failed": (BAD, "✕"),
    "running": (ACCENT, "▸"),
    "interrupted": (WARN, "‖"),
    "insufficient": (WARN, "?"),
    "skipped": (QUIET, "-"),
}


def draw(
    nodes: Sequence[dict[str, Any]],
    edges: Sequence[tuple[str, str]],
    *,
    title: str = "Steps",
    description: str = "",
    direction: Literal["across", "down"] = "across",
    align: Literal["middle", "start"] = "middle",
) -> str:
    """Draw nodes in layers, each after everything that it takes.

    The drawing keeps its natural size, so its place on the page should scroll (`overflow: auto`).

    Args:
        nodes: `{"id", "label", "status", "detail"}` each; `href` makes the node a link.
        edges: Pairs of ids, from the earlier to the later; a pair with an unknown id is left out.
        title: Name of the chart.
        description: What it shows; by default how many nodes stand how.
        direction: Where the flow goes: `across` the page, or `down` for a narrow one.
        align: Whether each layer stands in the `middle` of its neighbours, or all begin at the `start`: a graph that is
            larger than its window then leaves no empty corner.
    """
    index = {str(node["id"]): i for i, node in enumerate(nodes)}
    pairs = [(index[a], index[b]) for a, b in dict.fromkeys(edges) if a in index and b in index and a != b]
    layout = lay_out(len(nodes), pairs, hang=align == "start")
    size = _Size(layout, down=direction == "down")
    out = ['<g fill="none" stroke="currentColor" stroke-opacity="0.32" stroke-width="1.4">']
    for (a, b), route in zip(pairs, layout.routes, strict=True):
        names = f'data-from="{escape(nodes[a]["id"])}" data-to="{escape(nodes[b]["id"])}"'
        out.append(f'<path {names} d="{_curve(size, route)}"/>')
    out.append("</g>")
    for i, node in enumerate(nodes):
        x, y = size.corner(layout.layer[i], layout.place[i])
        out.append(_node(node, x, y))
    return frame(
        size.width, size.height, "".join(out), title=title, description=description or _summary(nodes), natural=True
    )


class _Size:
    """From layer and place to pixels."""

    def __init__(self, layout: Layout, *, down: bool) -> None:
        self.down = down
        self.along = (NODE_TALL + 40) if down else (NODE_WIDE + 56)
        self.beside = (NODE_WIDE + 18) if down else (NODE_TALL + 14)
        long = self.along * (layout.layers - 1)
        broad = self.beside * layout.span
        self.width = 2 * _PAD + NODE_WIDE + (broad if down else long)
        self.height = 2 * _PAD + NODE_TALL + (long if down else broad)

    def corner(self, layer: int, place: float) -> tuple[float, float]:
        """Return the upper left corner of a node."""
        long, broad = _PAD + layer * self.along, _PAD + place * self.beside
        return (broad, long) if self.down else (long, broad)

    def ports(self, layer: int, place: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return where edges come in and where they leave."""
        x, y = self.corner(layer, place)
        if self.down:
            return (x + NODE_WIDE / 2, y), (x + NODE_WIDE / 2, y + NODE_TALL)
        return (x, y + NODE_TALL / 2), (x + NODE_WIDE, y + NODE_TALL / 2)


def _curve(size: _Size, route: Sequence[tuple[int, float]]) -> str:
    """Return the path of an edge: straight through the band of a layer, curved between layers."""
    forward = route[0][0] <= route[-1][0]
    stops = route if forward else route[::-1]
    x, y = size.ports(*stops[0])[1]
    out = [f"M{at(x)} {at(y)}"]
    for i, stop in enumerate(stops[1:], start=2):
        (a, b), (c, d) = size.ports(*stop)
        if size.down:
            middle = (y + b) / 2
            out.append(f"C{at(x)} {at(middle)} {at(a)} {at(middle)} {at(a)} {at(b)}")
        else:
            middle = (x + a) / 2
            out.append(f"C{at(middle)} {at(y)} {at(middle)} {at(b)} {at(a)} {at(b)}")
        if i < len(stops):
            out.append(f"L{at(c)} {at(d)}")
            x, y = c, d
    return "".join(out)


def _node(node: dict[str, Any], x: float, y: float) -> str:
    name = str(node.get("label") or node["id"])
    detail, status = str(node.get("detail") or ""), str(node.get("status") or "")
    colour, sign = _LOOK.get(status, (QUIET, ""))
    said = ", ".join(part for part in (name, status, detail) if part)
    box = f'width="{at(NODE_WIDE)}" height="{at(NODE_TALL)}" rx="6"'
    line = 'stroke-dasharray="4 3"' if status in ("cached", "skipped") else ""
    about = f'data-id="{escape(node["id"])}" data-status="{escape(status)}" transform="translate({at(x)} {at(y)})"'
    parts = [
        f'<g class="node" {about}><title>{escape(said)}</title>',
        f'<rect {box} fill="var(--paper, Canvas)"/>',
        f'<rect {box} fill="{colour}" fill-opacity="0.1" stroke="{colour}" stroke-opacity="0.8" {line}/>',
        f'<rect width="4" height="{at(NODE_TALL)}" rx="2" fill="{colour}"/>',
        label(13, 18 if detail else 27, clip(name, NODE_WIDE - 40, size=13), weight=600),
    ]
    if detail:
        parts.append(label(13, 34, clip(detail, NODE_WIDE - 24, size=11), size=11, quiet=True))
    if sign:
        parts.append(label(NODE_WIDE - 11, 18, sign, anchor="end", extra=f'fill="{colour}"', weight=700))
    parts.append("</g>")
    body = "".join(parts)
    href = str(node.get("href") or "")
    # Only addresses within the site: a node never leads to a scheme such as `javascript:`.
    return f'<a href="{escape(href)}">{body}</a>' if href.startswith(("/", "#")) and not href.startswith("//") else body


def _summary(nodes: Sequence[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for node in nodes:
        status = str(node.get("status") or "not started")
        counts[status] = counts.get(status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{len(nodes)} steps: {told}." if nodes else "No steps."
