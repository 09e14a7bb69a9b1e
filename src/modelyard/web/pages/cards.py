"""The model card of a run: its sections, with every number beside the digest of its evidence."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard._kit.errors import NotFound
from modelyard.cards.view import Grid, Line, figure_grid, fold_lines, grid, prose
from modelyard.records import Block, Card, Run
from modelyard.web.answer import answer
from modelyard.web.pages.parts import latest_card
from modelyard.web.pages.run import find_run
from modelyard.web.query import Query
from modelyard.web.reader import Reader, values_in

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["CardPage", "Part", "Section", "card_of", "load", "load_file", "view", "view_file"]


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a section.

    Attributes:
        type: `text`, `facts`, `table` or `chart`.
        title: Its heading; may be empty.
        prose: What is written: paragraphs (`p`) and lists (`ul`) with their lines.
        lines: Facts in order, each with its bounds and its limit.
        grid: A table, or the numbers behind a chart; none for other types.
        svg: A drawn chart; empty for other types, and for a chart that this release does not know.
    """

    type: str
    title: str
    prose: tuple[dict[str, Any], ...]
    lines: tuple[Line, ...] = ()
    grid: Grid | None = None
    svg: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One of the sections of the card.

    Attributes:
        key: Its key, used in the address.
        title: Its title.
        parts: Its pieces.
    """

    key: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class CardPage:
    """The card of one run.

    Attributes:
        title: Title of the page.
        run: Id of the run that made it; empty if no run made a card yet.
        model: Name of the model.
        digest: Digest of the model.
        sections: Its sections.
        missing: Human fields that nobody filled.
        runs: The newest 20 runs that made a card, newest first.
        evidence: Records that it stands on.
    """

    title: str
    run: str
    model: str
    digest: str
    sections: tuple[Section, ...]
    missing: tuple[str, ...]
    runs: tuple[str, ...]
    evidence: int


def load(store: Reader, query: Query) -> CardPage:
    """Read the card of a run; `latest` is the newest card, and a project without one has an empty page.

    Raises:
        NotFound: There is no such run, or it made no card.
    """
    runs = tuple(reversed(list(store.catalog().cards)))
    if not runs and query.text("run") == "latest":
        return CardPage("Model card", "", "", "", (), (), (), 0)
    run, card = _find(store, query)
    return CardPage(
        title="Model card",
        run=run.id,
        model=card.model,
        digest=card.digest,
        sections=tuple(
            Section(section.key, section.title, tuple(_part(block, s, b) for b, block in enumerate(section.blocks)))
            for s, section in enumerate(card.sections)
        ),
        missing=card.missing,
        runs=runs[:20],
        evidence=len(card.evidence),
    )


def load_file(store: Reader, query: Query) -> str:
    """Return the card of a run as the one HTML file that it is sealed as.

    Raises:
        NotFound: There is no such run, or it made no card.
    """
    from modelyard.cards.render import html

    return html(_find(store, query)[1])


def card_of(run: Run) -> Card | None:
    """Return the card that a run made, or none."""
    cards = [value for step in run.steps for _, value in values_in(step.outputs) if isinstance(value, Card)]
    return cards[-1] if cards else None


def _find(store: Reader, query: Query) -> tuple[Run, Card]:
    catalog = store.catalog()
    wanted = query.text("run")
    run = find_run(store, latest_card(catalog) if wanted == "latest" else wanted)
    card = card_of(run)
    if card is None:
        raise NotFound.of("card of a run", run.id, reversed(list(catalog.cards)))
    return run, card


def _part(block: Block, s: int, b: int) -> Part:
    written = tuple(prose(block.text))
    match block.type:
        case "facts":
            return Part("facts", block.title, written, lines=fold_lines(block.facts, s, b))
        case "table":
            return Part("table", block.title, written, grid=grid(block, s, b))
        case "chart":
            return _figure(block, written, s, b)
        case _:
            return Part("text", block.title, written)


def _figure(block: Block, written: tuple[dict[str, Any], ...], s: int, b: int) -> Part:
    from modelyard.cards import charts

    try:
        svg = charts.draw(block.chart, title=block.title, description=block.text)
        numbers = figure_grid(block, s, b)
    except (KeyError, TypeError, ValueError):
        # A card of a later release may hold a chart that this one cannot draw; its text still stands.
        return Part("chart", block.title, written)
    return Part("chart", block.title, written, grid=numbers, svg=svg)


async def view(request: Request) -> Response:
    """Answer `/cards/{run}`."""
    return await answer(request, load, "card.html")


async def view_file(request: Request) -> Response:
    """Answer `/cards/{run}/file`: the sealed document itself, in which only its own style sheet may stand."""
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import HTMLResponse

    query = Query({**request.path_params})
    document = await run_in_threadpool(load_file, request.app.state.site.store, query)
    sheets = re.findall(r"<style>(.*?)</style>", document, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode() for sheet in sheets]
    styles = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    rules = f"default-src 'none'; style-src {styles}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return HTMLResponse(document, headers={"cache-control": "no-store", "content-security-policy": rules})
