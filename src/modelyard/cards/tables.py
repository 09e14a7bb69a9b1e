"""Find rows of numbers in evidence: groups with their rates, candidates, importances.

Each finder returns paths, not numbers: facts and charts copy what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.cards.facts import Source

__all__ = ["GroupRow", "Span", "group_rows", "importance_rows", "row_paths"]


@dataclass(frozen=True, slots=True)
class Span:
    """Where a value, the bounds of its interval and a word on it stand; an empty path where there is none."""

    value: str
    low: str = ""
    high: str = ""
    status: str = ""
    p: str = ""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group of rows: all of them, those of one factor, or an intersection.

    Attributes:
        path: Where the group stands.
        factors: How many factors it is told by; 0 for all rows.
        rates: Name of each rate -> where it stands.
    """

    path: str
    factors: int
    rates: dict[str, Span]


def row_paths(source: Source, path: str) -> list[str]:
    """Return the path of each item of a list; none where there is no list."""
    node = source.get(path)
    return [f"{path}.{i}" for i in range(len(node))] if isinstance(node, list | tuple) else []


def group_rows(source: Source) -> list[GroupRow]:
    """Return the groups of the evidence of `rates`, in its order."""
    found = []
    for path in row_paths(source, "details.groups"):
        rates = source.get(f"{path}.rates", {})
        spans = {name: _span(rates[name], f"{path}.rates.{name}") for name in sorted(rates)}
        found.append(GroupRow(path, len(source.get(f"{path}.by", [])), spans))
    return found


def _span(rate: Mapping[str, Any], path: str) -> Span:
    return Span(*(f"{path}.{key}" if key in rate else "" for key in ("value", "low", "high", "status", "p")))


def importance_rows(source: Source) -> list[str]:
    """Return the path of each column in the evidence of `importances`, the most important first."""
    paths = [path for path in row_paths(source, "details.rows") if source.has(f"{path}.importance")]
    return sorted(paths, key=lambda path: (-source.get(f"{path}.importance"), source.get(f"{path}.feature")))
