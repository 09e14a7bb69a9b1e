"""Print a card: one self-contained HTML file, Markdown, or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard._kit.text import number
from modelyard.cards import charts
from modelyard.cards.markdown import markdown
from modelyard.cards.view import GLANCE, figure_grid, fold_lines, grid, prose
from modelyard.records import Block, Card

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

__all__ = ["FORMATS", "html", "proofs", "render"]

# A table longer than this is folded away behind its title.
_LONG = 14
_WORDY = frozenset({"Reason", "Values", "How it is measured"})
_KINDS = ("evidence", "check_result", "gate", "split", "table", "model")


@dataclass(frozen=True, slots=True)
class Proof:
    """A record that the card stands on, as the last part of the page lists it.

    Attributes:
        digest: What stands for it.
        kind: What it is, in words.
        name: Its name.
        method: How it was measured.
        notes: Name and text of what else is known of it.
    """

    digest: str
    kind: str
    name: str
    method: str
    notes: tuple[tuple[str, str], ...]


def render(card: Card, form: str) -> str:
    """Return a card in one of the `FORMATS`.

    Args:
        card: The card.
        form: `html`, `md` or `json`.

    Raises:
        NotFound: There is no such format.
    """
    if form not in FORMATS:
        raise NotFound.of("card format", form, FORMATS)
    return FORMATS[form](card)


def html(card: Card) -> str:
    """Return the card as one HTML file that needs nothing beside itself and opens no connection."""
    at_top = [
        line
        for s, section in enumerate(card.sections)
        for b, block in enumerate(section.blocks)
        if block.type == "facts" and block.title == GLANCE
        for line in fold_lines(block.facts, s, b)
    ]
    return _template().render(
        card=card,
        lede=_lede(card),
        glance=at_top,
        sections=[_section(card, s) for s in range(len(card.sections))],
        proofs=proofs(card),
        identity=card.identity,
        css=(Path(__file__).parent / "templates" / "card.css").read_text(),
    )


def _json(card: Card) -> str:
    raw = msgspec.json.encode(card, order="deterministic")
    return msgspec.json.format(raw, indent=2).decode() + "\n"


FORMATS: dict[str, Callable[[Card], str]] = {"html": html, "md": markdown, "json": _json}


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # `card.evidence` has the whole digests; 12 digits tell the records of one card apart.
    env.filters["short"] = short
    env.filters["prose"] = prose
    env.filters["ticked"] = _ticked
    return env.get_template("card.html")


def _ticked(text: str) -> Markup:
    """Return text with what stands between backticks as code; everything in it is escaped."""
    from markupsafe import Markup

    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return _broken(text)
    marked = (Markup("<code>{}</code>").format(p) if i % 2 else _broken(p) for i, p in enumerate(pieces))
    return Markup("").join(marked)


def _broken(text: str) -> Markup:
    """Return text whose long names may break after their dots and underscores, and so not within a word."""
    from markupsafe import Markup, escape

    def broken(name: re.Match[str]) -> str:
        return re.sub(r"([._])(?=.)", r"\1<wbr>", name[0])

    return Markup(re.sub(r"\S{16,}", broken, str(escape(text))))  # noqa: S704 - the text was escaped


def _lede(card: Card) -> str:
    """Return the purpose, which stands under the name of the model."""
    blocks = (block for section in card.sections for block in section.blocks)
    return next((block.text for block in blocks if block.type == "text" and block.title == "Purpose"), "")


def _section(card: Card, s: int) -> dict[str, Any]:
    section = card.sections[s]
    groups: list[dict[str, Any]] = []
    for b, block in enumerate(section.blocks):
        if block.title == GLANCE:
            continue
        # Charts that follow one another share a row of the page.
        if block.type == "chart":
            if not groups or groups[-1]["type"] != "figures":
                groups.append({"type": "figures", "figures": []})
            groups[-1]["figures"].append(_figure(block, s, b))
        else:
            groups.append(_block(block, s, b))
    return {"number": s + 1, "key": section.key, "title": section.title, "groups": groups}


def _block(block: Block, s: int, b: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": block.type, "title": block.title, "text": block.text}
    if block.type == "facts":
        shown["lines"] = fold_lines(block.facts, s, b)
    elif block.type == "table":
        shown["grid"] = grid(block, s, b)
        shown["long"] = len(block.rows) > _LONG
        # A table with a sentence in each row is unreadable when squeezed: on a phone its rows become lists.
        shown["stack"] = not _WORDY.isdisjoint(block.header)
        shown["proofs"] = sorted({fact.evidence for row in block.rows for fact in row if fact.evidence})
    return shown


def _figure(block: Block, s: int, b: int) -> dict[str, Any]:
    from markupsafe import Markup

    drawn = charts.draw(block.chart, title=block.title, description=block.text)
    return {
        "title": block.title,
        "text": block.text,
        "evidence": block.evidence,
        # Every text in the drawing went through `charts.base.escape`.
        "svg": Markup(drawn),  # noqa: S704
        "grid": figure_grid(block, s, b),
    }


def proofs(card: Card) -> list[Proof]:
    """Return the records of a card in a fixed order: what was measured first, then what it was measured on."""
    found = [_proof(digest, record) for digest, record in card.evidence.items()]
    rank = {kind: i for i, kind in enumerate(_KINDS)}
    return sorted(found, key=lambda p: (rank.get(p.kind, len(rank)), p.name, p.digest))


def _proof(digest: str, record: dict[str, Any]) -> Proof:
    kind = str(record.get("kind", ""))
    name = str(record.get("measure") or record.get("name") or (record.get("check") or {}).get("name") or kind)
    notes: list[tuple[str, str]] = []
    if kind == "evidence":
        notes += [
            (word, number(record[name])) for word, name in (("value", "value"), ("rows", "n")) if record.get(name)
        ]
        if record.get("seed") is not None:
            # A seed is a name rather than an amount: no comma in it.
            notes.append(("seed", str(record["seed"])))
        if record.get("volatile"):
            notes.append(("timing", "differs when measured again"))
        for one in record.get("data") or ():
            notes.append(("data", short(one)))
        notes += [(word, short(record[word])) for word in ("model", "code") if record.get(word)]
    elif kind == "check_result":
        notes += [("status", str(record.get("status"))), ("evidence", short(str(record.get("evidence"))))]
    elif kind == "table":
        notes.append(("rows", number(record.get("rows"))))
    elif kind == "model":
        notes += [("family", str(record.get("family"))), ("format", str(record.get("format")))]
    return Proof(digest, kind, name, str(record.get("method") or ""), tuple(notes))
