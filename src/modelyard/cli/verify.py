"""`modelyard verify`: recompute what was claimed, and name what does not hold."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from modelyard._kit.actor import user
from modelyard._kit.digest import short
from modelyard._kit.errors import ModelyardError, NotFound, Tampered, UserError
from modelyard._kit.text import plural
from modelyard.cli.output import MARKS, data, json_line, paint, say
from modelyard.cli.project import add_file, add_json, open_existing

if TYPE_CHECKING:
    from modelyard.records import Run
    from modelyard.store import Store

__all__ = ["add", "run"]


def add(subparsers: Any) -> None:
    """Add the verb to the parser."""
    parser = subparsers.add_parser(
        "verify",
        help="recompute what was claimed: a card, a bundle, the ledger",
        description="Verify the chain of the ledger, the signature and bytes of the newest model, the numbers in the "
        "card files, and the evidence itself, measured again from the stored data and model. Names what does not hold.",
        epilog="example:\n  modelyard verify --ledger",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ledger", action="store_true", help="only the ledger's chain and its kept tables")
    parser.add_argument("--bundle", action="store_true", help="only the model's signature and bytes")
    parser.add_argument("--card", action="store_true", help="only the card's numbers and their evidence")
    parser.add_argument("--run", default="", dest="run_id", metavar="RUN", help="of this run, not the newest")
    add_file(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Verify and print; exit 1 when anything does not hold."""
    from modelyard.records import Draft

    store = open_existing(args)
    every = not (args.ledger or args.bundle or args.card)
    held: list[str] = []
    faults: list[str] = []
    if args.ledger or every:
        faults += [f"ledger: {fault.what}" for fault in store.ledger.verify()]
        if not faults:
            held.append(f"ledger: {plural(store.ledger.head()[0], 'event')}, chain and kept tables hold")
    # A run is read out of the ledger: where that does not hold, nothing read from it proves anything.
    if not faults and (args.bundle or args.card or every):
        found = _run_with_card(store, args.run_id)
        if args.bundle or every:
            _bundle(found, store, held, faults)
        if args.card or every:
            _tables(found, store, held, faults)
            _card(found, store, held, faults)
        payload: dict[str, Any] = {"run": found.id, "held": held, "faults": faults}
        try:
            store.ledger.append(Draft(kind="verify.finished", run=found.id, actor=user(), payload=payload))
        except UserError as error:
            # A copy that cannot be written is verified all the same.
            say(f"not recorded: {error.problem.message}")
    if args.json:
        json_line({"ok": not faults, "held": held, "faults": faults})
    else:
        for line in held:
            data(f"{paint(MARKS['passed'], 'passed')} {line}")
        for line in faults:
            data(f"{paint(MARKS['failed'], 'failed')} {line}")
    return 1 if faults else 0


def _run_with_card(store: Store, run_id: str) -> Run:
    if run_id:
        found = store.ledger.run(run_id)
        if found is None:
            raise NotFound.of("run", run_id, [r.id for r in store.ledger.runs()])
        return found
    found = _published(store)
    if found is None:
        raise NotFound("card-not-found", "no run has released a model yet", hint="`modelyard run` does")
    return found


def _published(store: Store) -> Run | None:
    """Return the newest run that succeeded with a card: its card is the one in the files."""
    for listed in store.ledger.runs(limit=1000):
        if listed.status == "succeeded":
            found = store.ledger.run(listed.id)
            if found is not None and any(s.name == "card" and s.outputs for s in found.steps):
                return found
    return None


def _bundle(run: Run, store: Store, held: list[str], faults: list[str]) -> None:
    from modelyard.inference import open_bundle
    from modelyard.records import ModelVersion, read_value
    from modelyard.security.keys import trusted_keys

    for step in run.steps:
        for raw in step.outputs.values():
            model = read_value(raw)
            if isinstance(model, ModelVersion):
                name = f"bundle {short(model.digest)} of step `{step.name}`"
                try:
                    open_bundle(store.blobs.folder(model.address), trusted=trusted_keys(store.root), version=model)
                except (Tampered, NotFound) as error:
                    faults.append(f"{name}: {error.problem.message}")
                else:
                    held.append(f"{name}: signature and every byte hold")


def _tables(run: Run, store: Store, held: list[str], faults: list[str]) -> None:
    """Hold every byte of the tables of a run against the ledger: what is measured again is measured on these."""
    from modelyard.records import TableVersion, values_of

    tables = values_of(run, TableVersion)
    count = len(faults)
    for table in tables:
        try:
            store.tables.verify(table)
        except (Tampered, NotFound) as error:
            faults.append(f"table {table.name}: {error.problem.message}")
    if len(faults) == count:
        held.append(f"{plural(len(tables), 'table')}: every byte holds")


def _card(run: Run, store: Store, held: list[str], faults: list[str]) -> None:
    from modelyard.cards.verify import compare, compare_file
    from modelyard.pipeline.publish import card_files, card_of, evidence_of
    from modelyard.pipeline.recompute import recompute

    card = card_of(run)
    evidence = evidence_of(run)
    wrong = compare(card, evidence)
    faults += [f"card: {text}" for text in wrong]
    if not wrong:
        held.append(f"card of {card.model} {short(card.digest)}: every number is that of its evidence")
    published = _published(store)
    # The files hold the newest released card; that of another run is compared with its evidence only.
    same = published is not None and card_of(published) == card
    for file in card_files(run, store) if same else ():
        if not file.is_file():
            faults.append(f"{file.name}: missing; `modelyard card` writes it again")
            continue
        wrong = compare_file(file, card)
        faults += [f"{file.name}: {text}" for text in wrong]
        if not wrong:
            held.append(f"{file.name}: as recorded")
    try:
        again = recompute(run, store, each=lambda step: say(f"… measuring {step} again"))
    except ModelyardError as error:
        faults.append(f"evidence: {error.problem.message}")
        return
    faults += [f"{d.step}: {d.what}" for d in again]
    if not again:
        held.append("evidence: measured again from the stored data and model, it is the same")
