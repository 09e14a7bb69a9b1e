"""`modelyard card`: show or write the model card."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import short
from modelyard._kit.errors import NotFound
from modelyard._kit.files import write_atomic
from modelyard.cli.output import data, say, write_output
from modelyard.cli.project import add_file, known_stages, open_existing

if TYPE_CHECKING:
    from modelyard.records import Card, ModelVersion, Run
    from modelyard.store import Store

__all__ = ["add", "run"]

_FORMATS = ("html", "md", "json")
# A shorter piece of a digest may fit several models.
_FEWEST_DIGITS = 6


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "card",
        help="show or write the model card",
        description="The model card of the champion, or of a run. Without --format and -o it is written as files "
        "into the project's `cards` folder, and the path of the page is printed.",
        epilog="example:\n  modelyard card income --format md | less\n  modelyard card -o income.html",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        nargs="?",
        default="",
        metavar="MODEL|ENDPOINT",
        help="an endpoint or a stage (its champion), the digest of a model, or a run; by default the newest champion",
    )
    parser.add_argument("--format", choices=_FORMATS, default="", dest="form", help="print it in this format")
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="write it to this file instead")
    add_file(parser)


def run(args: argparse.Namespace) -> int:
    """Find the card and print it, or write it and print where."""
    from modelyard.cards.render import render

    store = open_existing(args, model=True)
    found, card = _find(args, store, args.name)
    if card.missing:
        say(f"not complete, so its model is not released; nobody has filled: {', '.join(card.missing)}")
    if args.output:
        target = Path(args.output)
        form = args.form or target.suffix.removeprefix(".")
        if form not in _FORMATS:
            raise NotFound.of("card format", form or str(target), _FORMATS)
        write_output(target, render(card, form).encode())
        data(str(target))
    elif args.form:
        data(render(card, args.form).removesuffix("\n"))
    else:
        data(str(_published(found, card, store)))
    return 0


def _published(found: Run, card: Card, store: Store) -> Path:
    """Write the card where the project's cards are and return the page.

    The files named after the model belong to the newest card; an older one gets a page of its own.
    """
    from modelyard.cards.render import render
    from modelyard.pipeline.publish import card_files, publish

    if next(_cards(store))[0].id == found.id:
        return publish(found, store)[0]
    page = card_files(found, store)[0].with_name(f"{card.model}-{short(card.digest)}.html")
    write_atomic(page, render(card, "html").encode())
    return page


def _find(args: argparse.Namespace, store: Store, name: str) -> tuple[Run, Card]:
    """Return the card that a name means, and the run that made it.

    Raises:
        NotFound: There is no such endpoint, model or run, or it has no card.
    """
    from modelyard.pipeline.publish import card_of

    if name.startswith("run-"):
        found = store.ledger.run(name)
        if found is None:
            raise NotFound.of("run", name, [r.id for r in store.ledger.runs()])
        return found, card_of(found)
    champions = {move.endpoint: move for move in store.ledger.aliases() if move.alias == "champion"}
    if name and name not in champions:
        name = dict(known_stages(args, store)[1]).get(name, name)
    if name in champions:
        return _of_model(store, champions[name].model, f"the champion of `{name}`")
    if name:
        digest = name.lower()
        if len(digest) >= _FEWEST_DIGITS and set(digest) <= set("0123456789abcdef"):
            return _newest_of(store, digest, f"model `{name}`")
        raise NotFound.of("endpoint", name, champions)
    if champions:
        # Moves are told oldest first, and a later move takes the place of an earlier one.
        newest = [move for move in store.ledger.aliases() if move.alias == "champion"][-1]
        return _of_model(store, newest.model, f"the champion of `{newest.endpoint}`")
    for found, card in _cards(store):
        return found, card
    raise NotFound("card-not-found", "no run has made a card yet", hint="`modelyard run` makes one")


def _of_model(store: Store, model: ModelVersion, what: str) -> tuple[Run, Card]:
    """Return the card that a model has where it answers; a later run may have given the same model another one."""
    from modelyard.records import ModelVersion, values_of

    for found, card in _cards(store):
        if any(made.identity == model.identity for made in values_of(found, ModelVersion)):
            return found, card
    return _newest_of(store, model.digest, what)


def _newest_of(store: Store, digest: str, what: str) -> tuple[Run, Card]:
    for found, card in _cards(store):
        if card.digest.startswith(digest):
            return found, card
    raise NotFound("card-not-found", f"no run made a card for {what}", hint="see the runs with `modelyard runs`")


def _cards(store: Store) -> Iterator[tuple[Run, Card]]:
    """Yield the runs that made a card, newest first."""
    from modelyard.pipeline.publish import card_of

    before = ""
    while page := store.ledger.runs(before=before):
        for listed in page:
            found = store.ledger.run(listed.id)
            if found is not None and any(step.name == "card" and step.outputs for step in found.steps):
                yield found, card_of(found)
        before = page[-1].id
