"""What a card looks like before it is HTML or Markdown: cells with a key, merged columns, prose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard._kit.digest import short
from modelyard._kit.text import number
from modelyard.cards import charts
from modelyard.records import Block, Card, Fact, Section

__all__ = ["GLANCE", "Cell", "Grid", "Line", "cells", "fact_text", "figure_grid", "fold_lines", "grid", "key", "prose"]

# Title of the block of facts that a page shows at its top.
GLANCE = "At a glance"
# `X`, `X low`, `X high`, ... are one value and its parts: they share a place on the page.
PARTS = ("low", "high", "op", "limit", "limit op", "status")
_DIGEST = re.compile("[0-9a-f]{64}")
_SIGNS = {"at_least": "≥", "at_most": "≤", "equal": "="}


@dataclass(frozen=True, slots=True)
class Cell:
    """One number or text at its place.

    Attributes:
        key: `section.block.row.column`, unique in a card.
        label: What it is, for messages.
        text: As it reads.
        value: The whole value as text, empty where there is none.
        evidence: Digest of where it comes from; empty for what a person wrote.
        path: Where it stands there.
        number: Whether it is a number.
        digest: Whether it is a digest, of which only the beginning is shown.
    """

    key: str
    label: str
    text: str
    value: str = ""
    evidence: str = ""
    path: str = ""
    number: bool = False
    digest: bool = False

    @property
    def title(self) -> str:
        """The tooltip: the whole value and its proof."""
        if not self.evidence:
            return ""
        whole = f"{self.value} · " if self.value != self.text and (self.number or self.digest) else ""
        return f"{whole}evidence {short(self.evidence)}{' · ' + self.path if self.path else ''}"


@dataclass(frozen=True, slots=True)
class Line:
    """A value with what belongs to it: bounds, limit, and a word on it.

    Attributes:
        value: The value.
        parts: Name of each part that there is -> its cell; see `PARTS`.
    """

    value: Cell
    parts: dict[str, Cell] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Cell | None:
        """Return a part, or none: `line.low`, `line.limit_op`."""
        if name.replace("_", " ") in PARTS:
            return self.parts.get(name.replace("_", " "))
        raise AttributeError(name)

    @property
    def bounded(self) -> bool:
        """Whether it has both bounds of an interval."""
        return all(part in self.parts and self.parts[part].number for part in ("low", "high"))

    @property
    def scarce(self) -> bool:
        """Whether too few rows tell of it."""
        return "status" in self.parts and self.parts["status"].text == "insufficient"


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: names of the columns and lines of merged cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[Line, ...], ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column whether it holds numbers, and so stands flush right."""
        return tuple(
            any(row[i].value.number for row in self.rows)
            and all(row[i].value.number or not row[i].value.value for row in self.rows)
            for i in range(len(self.header))
        )


def key(section: int, block: int, row: int, column: int) -> str:
    """Return the key of a cell."""
    return f"{section}.{block}.{row}.{column}"


def fact_text(fact: Fact) -> str:
    """Return a fact as it reads; a cell that was left empty reads as nothing, an unmeasured value as `n/a`."""
    value = fact.value
    if isinstance(value, str):
        return short(value) if _DIGEST.fullmatch(value) else value
    if value is None:
        return number(None) if fact.evidence else ""
    return f"{number(value)} {fact.unit}".rstrip()


def _cell(place: str, fact: Fact, column: str = "") -> Cell:
    value, name = fact.value, column or fact.label
    text = fact_text(fact)
    return Cell(
        key=place,
        label=fact.label,
        text=_SIGNS.get(text, text) if name.endswith(" op") else text,
        value="" if value is None else str(value),
        evidence=fact.evidence,
        path=fact.path,
        number=isinstance(value, int | float),
        digest=isinstance(value, str) and _DIGEST.fullmatch(value) is not None,
    )


def _part(name: str, whole: str) -> str:
    """Return which part of `whole` a label names, or nothing."""
    rest = name.removeprefix(f"{whole} ") if name.startswith(f"{whole} ") else ""
    return rest if rest in PARTS else ""


def fold_lines(facts: Sequence[Fact], section: int, block: int) -> tuple[Line, ...]:
    """Merge `X` and its parts in a list of facts into one line each."""
    lines: list[Line] = []
    for i, fact in enumerate(facts):
        cell = _cell(key(section, block, i, 0), fact)
        part = _part(fact.label, lines[-1].value.label) if lines else ""
        if part:
            lines[-1].parts[part] = cell
        else:
            lines.append(Line(cell))
    return tuple(lines)


def grid(block: Block, section: int, index: int) -> Grid:
    """Return a table block with the columns of a value and its parts merged into one."""
    columns: list[tuple[int, dict[str, int]]] = []
    for i, name in enumerate(block.header):
        part = _part(name, block.header[columns[-1][0]]) if columns else ""
        if part:
            columns[-1][1][part] = i
        else:
            columns.append((i, {}))
    rows = []
    for r, row in enumerate(block.rows):
        made = [_cell(key(section, index, r, c), fact, block.header[c]) for c, fact in enumerate(row)]
        rows.append(tuple(Line(made[c], {part: made[at] for part, at in parts.items()}) for c, parts in columns))
    return Grid(tuple(block.header[c] for c, _ in columns), tuple(rows))


def figure_grid(block: Block, section: int, index: int) -> Grid:
    """Return the numbers behind a chart as a table."""
    header, body = charts.table(block.chart)
    rows = []
    for r, row in enumerate(body):
        name = str(row[0]) if row and isinstance(row[0], str) else f"row {r + 1}"
        made = []
        for c, value in enumerate(row):
            fact = Fact(label=f"{block.title}, {name}, {header[c]}", value=value, evidence=block.evidence)
            made.append(Line(_cell(key(section, index, r, c), fact)))
        rows.append(tuple(made))
    return Grid(tuple(header), tuple(rows))


def cells(card: Card) -> Iterator[tuple[Section, Cell]]:
    """Yield every cell of a card with its section, in the order in which a page shows them."""
    for s, section in enumerate(card.sections):
        for b, block in enumerate(section.blocks):
            if block.type == "facts":
                for i, fact in enumerate(block.facts):
                    yield section, _cell(key(s, b, i, 0), fact)
            elif block.type == "table":
                for r, row in enumerate(block.rows):
                    for c, fact in enumerate(row):
                        yield section, _cell(key(s, b, r, c), fact, block.header[c])
            elif block.type == "chart":
                for line in (line for row in figure_grid(block, s, b).rows for line in row):
                    yield section, line.value


def prose(text: str) -> list[dict[str, Any]]:
    r"""Return what a person wrote as paragraphs and lists: lines that begin with `- ` are items.

    >>> prose("One.\n\n- a\n- b")
    [{'type': 'p', 'lines': ['One.']}, {'type': 'ul', 'lines': ['a', 'b']}]
    """
    out: list[dict[str, Any]] = []
    fresh = True
    for raw in text.split("\n"):
        line = raw.strip()
        if not line:
            fresh = True
        elif line.startswith("- "):
            if not out or out[-1]["type"] != "ul":
                out.append({"type": "ul", "lines": []})
            out[-1]["lines"].append(line[2:].strip())
        elif not fresh and out and out[-1]["type"] == "p":
            out[-1]["lines"].append(line)
        else:
            out.append({"type": "p", "lines": [line]})
        fresh = not line
    return out
