"""A card: sections whose every number points to its evidence."""

from __future__ import annotations

from typing import Any

import msgspec

from modelyard.records.base import Value

__all__ = ["Block", "Card", "Fact", "Section"]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One number or text of the card.

    Attributes:
        label: What it is, e.g. `ROC AUC`.
        value: The number or text itself, copied from the evidence by code, never typed.
        unit: Unit of the number.
        evidence: Digest of the evidence (or table, or model) it comes from; empty for what a person wrote.
        path: Where in the evidence it stands, e.g. `value` or `details.groups.3.fpr`.
    """

    label: str
    value: float | int | str | None
    unit: str = ""
    evidence: str = ""
    path: str = ""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a section: prose, a list of facts, a table of facts, or a chart.

    Attributes:
        type: `text`, `facts`, `table` or `chart`.
        title: Heading of the block; may be empty.
        text: Prose (type `text`), or the description of a chart.
        facts: Facts in order (type `facts`).
        header: Column names (type `table`).
        rows: Rows of facts (type `table`).
        chart: Name of the chart and its data (type `chart`), drawn as SVG when the card is rendered.
        evidence: Digest of the evidence a chart is drawn from.
    """

    type: str
    title: str = ""
    text: str = ""
    facts: tuple[Fact, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Fact, ...], ...] = ()
    chart: dict[str, Any] = {}
    evidence: str = ""


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """One of the nine sections of a model card."""

    key: str
    title: str
    blocks: tuple[Block, ...]


class Card(Value, frozen=True, kw_only=True, tag="card"):
    """The model card (Mitchell et al., 2019, "Model Cards for Model Reporting").

    Attributes:
        model: Name of the model.
        digest: Digest of the model it describes.
        sections: The nine sections in their order.
        evidence: The evidence itself, by digest, so that the card stands alone.
        missing: Human fields that nobody filled; a release is blocked while there are any.
    """

    model: str
    digest: str
    sections: tuple[Section, ...]
    evidence: dict[str, Any] = {}
    missing: tuple[str, ...] = ()
