"""Compare a card with its evidence, and a file with the card it was printed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from modelyard._kit.digest import short
from modelyard.cards.facts import NOWHERE, Source, as_fact, look_up, to_json
from modelyard.cards.figures import chart
from modelyard.cards.gate import gate_of
from modelyard.cards.printed import differences
from modelyard.records import Block, Card, CheckResult, Evidence, Fact, Section

__all__ = ["compare", "compare_file"]


def compare(card: Card, evidence: Mapping[str, Evidence]) -> list[str]:
    """Compare every fact and chart of a card with the evidence it names.

    Args:
        card: The card.
        evidence: Digest -> evidence as the ledger has it, or as it was measured again. Records of other kinds
            (model, table, split, result of a check) are compared with the card's own copy.

    Returns:
        One sentence for each fault; empty if everything holds.
    """
    found = list(_own_records(card))
    sources: dict[str, Source | None] = {}
    for section, block, fact in _facts(card):
        digest = fact.evidence if fact is not None else block.evidence
        if not digest:
            continue
        if digest not in sources:
            sources[digest], fault = _source(card, evidence, digest)
            found += [fault] if fault else []
        source = sources[digest]
        if source is None:
            continue
        text = _fact_fault(fact, source) if fact is not None else _chart_fault(block, source)
        if text:
            found.append(f'section "{section.title}": {text}')
    return found


def _facts(card: Card) -> Iterator[tuple[Section, Block, Fact | None]]:
    """Yield every fact, and every chart as none, with its section and block."""
    for section in card.sections:
        for block in section.blocks:
            for fact in block.facts:
                yield section, block, fact
            for row in block.rows:
                for fact in row:
                    yield section, block, fact
            if block.type == "chart":
                yield section, block, None


def _source(card: Card, evidence: Mapping[str, Evidence], digest: str) -> tuple[Source | None, str]:
    recorded = card.evidence.get(digest)
    given = evidence.get(digest)
    if given is not None:
        again = given.identity != digest
        if again and given.volatile and recorded is not None:
            # A timing that was measured again differs: only its record can be compared.
            return Source(digest, recorded), ""
        return Source(digest, to_json(given)), ""
    if recorded is None:
        return None, f"evidence {short(digest)} is nowhere: neither in the card nor on record"
    if recorded.get("kind") == "evidence":
        return None, f"evidence {short(digest)} ({recorded.get('measure')}) stands in the card but is not on record"
    return Source(digest, recorded), ""


def _fact_fault(fact: Fact, source: Source) -> str:
    there = look_up(source.record, fact.path)
    if there is NOWHERE:
        return f"{fact.label}: nothing stands at `{fact.path}` of evidence {short(source.digest)}"
    if (expected := as_fact(there)) != fact.value:
        where = f"`{fact.path}` of evidence {short(source.digest)}"
        return f"{fact.label}: expected {_said(expected)} ({where}), found {_said(fact.value)}"
    return ""


def _chart_fault(block: Block, source: Source) -> str:
    expected = chart(str(block.chart.get("figure", "")), source)
    if expected is None or to_json(expected) != to_json(block.chart):
        return f'chart "{block.title}" is not what evidence {short(source.digest)} shows'
    return ""


def _own_records(card: Card) -> Iterator[str]:
    """Yield what is wrong with the card's own copies: each must have the digest that it stands under."""
    for digest, record in sorted(card.evidence.items()):
        kind = record.get("kind")
        if kind == "evidence":
            held = _identity(record, Evidence) == digest
        elif kind == "check_result":
            whole = {**record, "evidence": card.evidence.get(str(record.get("evidence")))}
            held = _identity(whole, CheckResult) == digest
        elif kind == "gate":
            results = {str(d): card.evidence.get(str(d), {}) for d in record.get("results", [])}
            held = gate_of(results) == record
        else:
            continue
        if not held:
            yield f"the card's copy of {kind} {short(digest)} was changed"


def _identity(record: dict[str, Any], kind: type[Evidence | CheckResult]) -> str:
    try:
        return msgspec.convert(record, kind).identity
    except msgspec.ValidationError:
        return ""


def _said(value: Any) -> str:
    return "nothing" if value is None else str(value)


def compare_file(path: Path, card: Card) -> list[str]:
    """Compare a file on disk (`.html`, `.md` or `.json`) with the card it was printed from.

    Returns:
        One sentence for each number that differs (section, label, expected, found) and for each other change;
        empty if the file is what the card prints.

    Raises:
        NotFound: The file's ending is not that of a card.
        OSError: The file cannot be read.
    """
    from modelyard.cards.render import render

    form = path.suffix.removeprefix(".")
    expected = render(card, form)
    raw = path.read_bytes()
    if raw == expected.encode():
        return []
    try:
        found = raw.decode()
    except UnicodeDecodeError as error:
        return [f"the file is not text: {error.reason} at byte {error.start}"]
    return differences(form, expected, found, card) or ["the file differs in its line ends or spaces only"]
