"""A card as Markdown: headings, lists and tables, with the digest of its evidence beside every number."""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelyard._kit.digest import short
from modelyard.cards.view import GLANCE, Cell, Grid, Line, figure_grid, fold_lines, grid, prose
from modelyard.records import Block, Card, Section

__all__ = ["escape", "markdown"]

# A curve of more points than this is left to the HTML card and to the evidence.
_MOST_POINTS = 30


def escape(text: str) -> str:
    r"""Return text that reads as itself in Markdown and holds no HTML, on one line.

    >>> print(escape("<b>a|b</b> *c*"))
    &lt;b&gt;a\|b&lt;/b&gt; \*c\*
    """
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", line)


def markdown(card: Card) -> str:
    """Return the card as Markdown."""
    out = [f"# {escape(card.model)}: model card", ""]
    if card.missing:
        names = ", ".join(f"`{name}`" for name in card.missing)
        out += [f"**Not complete.** A model is released only with a whole card. Nobody has filled: {names}", ""]
    for s, section in enumerate(card.sections):
        out += [f"## {s + 1}. {escape(section.title)}", ""]
        for b, block in enumerate(section.blocks):
            out += _block(block, s, b, section)
    out += ["## Evidence", "", "| Evidence | Measure | Rows | Method |", "| --- | --- | ---: | --- |"]
    for digest, record in sorted(card.evidence.items()):
        if record.get("kind") == "evidence":
            cells = (str(record.get("measure", "")), str(record.get("n", 0)), str(record.get("method", "")))
            out.append(_row([f"`{short(digest)}`", *map(escape, cells)]))
    out += ["", f"Model `{card.digest}`  ", f"Card `{card.identity}`", ""]
    return "\n".join(out)


def _block(block: Block, s: int, b: int, section: Section) -> list[str]:
    out = [f"### {escape(block.title)}", ""] if block.title else []
    if block.type == "chart":
        return _figure(block, s, b, section, out)
    for part in prose(block.text):
        lines = [f"- {escape(item)}" for item in part["lines"]]
        out += [*lines, ""] if part["type"] == "ul" else [" ".join(escape(item) for item in part["lines"]), ""]
    if block.type == "facts":
        name = "Summary" if block.title == GLANCE else "Fact"
        rows = [[escape(line.value.label), _line(line), _proof([line.value])] for line in fold_lines(block.facts, s, b)]
        out += [*_table([name, "Value", "Evidence"], [False] * 3, rows), ""]
    elif block.type == "table":
        out += [*_grid(grid(block, s, b)), ""]
    return out


def _figure(block: Block, s: int, b: int, section: Section, head: list[str]) -> list[str]:
    # The numbers of a chart that stand in a table of the same section already are not told twice.
    told = {fact.evidence for other in section.blocks for row in other.rows for fact in row}
    if block.evidence in told:
        return []
    if block.text:
        head += [escape(block.text), ""]
    numbers = figure_grid(block, s, b)
    if len(numbers.rows) > _MOST_POINTS:
        return [*head, f"Drawn in the HTML card; the points are in evidence `{short(block.evidence)}`.", ""]
    return [*head, *_grid(numbers), ""]


def _grid(numbers: Grid) -> list[str]:
    rows = [[*map(_line, row), _proof([line.value for line in row])] for row in numbers.rows]
    return _table([*map(escape, numbers.header), "Evidence"], [*numbers.numeric, False], rows)


def _table(header: Sequence[str], numeric: Sequence[bool], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(header), _row(["---:" if n else "---" for n in numeric]), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(line: Line) -> str:
    parts = line.parts
    text = f"{parts['op'].text} {escape(line.value.text)}" if line.op else escape(line.value.text)
    if line.bounded:
        text += f" ({escape(parts['low'].text)} to {escape(parts['high'].text)})"
    if line.limit:
        sign = f"{parts['limit op'].text} " if line.limit_op else ""
        text += f", limit {sign}{escape(parts['limit'].text)}"
    return f"{text}, too few rows" if line.scarce else text


def _proof(cells: Sequence[Cell]) -> str:
    return ", ".join(f"`{digest}`" for digest in dict.fromkeys(short(c.evidence) for c in cells if c.evidence))
