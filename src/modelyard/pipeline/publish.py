"""Put what people read where they look for it: the card as files beside the declaration."""

from __future__ import annotations

from pathlib import Path

from modelyard._kit.errors import NotFound
from modelyard._kit.files import write_atomic
from modelyard.records import Card, CheckResult, Evidence, Run, values_of
from modelyard.store import Store
from modelyard.store.disk import explained

__all__ = ["card_files", "card_of", "evidence_of", "publish"]

FOLDER = "cards"


def card_of(run: Run) -> Card:
    """Return the card that a run made.

    Raises:
        NotFound: It made none.
    """
    cards = values_of(run, Card)
    if cards:
        return cards[-1]
    raise NotFound("card-not-found", f"run `{run.id}` made no card", hint="see why with `modelyard show`")


def evidence_of(run: Run) -> dict[str, Evidence]:
    """Return all evidence that a run recorded, by its digest."""
    results = values_of(run, CheckResult)
    found = [*values_of(run, Evidence), *(result.evidence for result in results)]
    return {evidence.identity: evidence for evidence in found}


def card_files(run: Run, store: Store) -> list[Path]:
    """Return the files a run's card is published as; none if it made no card."""
    if not values_of(run, Card):
        return []
    folder = store.root / FOLDER
    return [folder / f"{card_of(run).model}.{ending}" for ending in ("html", "md", "json")]


def publish(run: Run, store: Store) -> list[Path]:
    """Write the card of a run as HTML, Markdown and JSON; a file that is right already is not touched.

    Returns:
        The files; none if the run made no card.

    Raises:
        UserError: The disk is full, or the folder cannot be written.
    """
    from modelyard.cards.render import render

    files = card_files(run, store)
    if not files:
        return []
    card = card_of(run)
    contents = {file: render(card, file.suffix.removeprefix(".")).encode() for file in files}
    for file, content in contents.items():
        if not file.is_file() or file.read_bytes() != content:
            with explained(file):
                write_atomic(file, content)
    return files
