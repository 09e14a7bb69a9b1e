"""Write the nine sections of a model card; every number is copied from its evidence by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from modelyard.cards.facts import Book, Source
from modelyard.cards.gate import gate_of
from modelyard.cards.quantities import curve_blocks, group_blocks, importance_blocks
from modelyard.cards.rows import (
    Row,
    candidate_table,
    checks_table,
    claims_table,
    feature_table,
    rules_table,
    table_facts,
)
from modelyard.cards.view import GLANCE
from modelyard.cards.words import RATES, measure_title, words
from modelyard.records import Block, Card, CheckResult, Evidence, Fact, ModelVersion, Problem, Section

__all__ = ["REQUIRED", "Made", "build", "missing_words"]

# What only a person can say, and without which a model is not released: name -> (part of the file, path in it).
REQUIRED: dict[str, tuple[str, str]] = {
    "purpose": ("project", "purpose"),
    "owners": ("project", "owners"),
    "card.intended_use.for": ("human", "intended_use.for"),
    "card.intended_use.users": ("human", "intended_use.users"),
    "card.intended_use.not_for": ("human", "intended_use.not_for"),
    "card.ethics": ("human", "ethics"),
    "card.caveats": ("human", "caveats"),
}
# How the rows were split: name of the fact -> label, in the order of the card. Others follow under their own names.
_SPLIT = {
    "by": "Split by",
    "column": "Column",
    "test": "Share kept for the test",
    "seed": "Seed",
    "train_rows": "Rows for training",
    "test_rows": "Rows for the test",
}
# Kinds of check that say something of the people behind the rows.
_ETHICAL = ("gap", "membership_inference", "evasion", "attribute_inference", "inversion")


class Made(Protocol):
    """Whatever holds a model version: an opened bundle."""

    @property
    def version(self) -> ModelVersion:
        """The version."""
        ...


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Everything that a card is written from, with its records already in the book."""

    book: Book
    project: Mapping[str, Any]
    human: Mapping[str, Any]
    problem: Problem
    model: Source
    selection: Source
    gate: Source
    results: Sequence[Row]
    contracts: Sequence[Row] = ()
    rates: Source | None = None
    curves: Source | None = None
    importances: Source | None = None
    tables: Sequence[Source] = ()
    split: Source | None = None
    missing: tuple[str, ...] = field(default=())

    def text(self, path: str, title: str = "") -> list[Block]:
        """Return what a person wrote as a block, or nothing where nobody wrote."""
        return _text(_at(self.human, path), title)


def build(
    *,
    project: Mapping[str, Any],
    human: Mapping[str, Any],
    model: Made,
    problem: Problem,
    selection: CheckResult | Evidence,
    results: Sequence[Any],
    contracts: Sequence[Any] = (),
    rates: Evidence | None = None,
    curves: Evidence | None = None,
    importances: Evidence | None = None,
    tables: Sequence[Mapping[str, Any]] = (),
    split: Mapping[str, Any] | None = None,
) -> Card:
    """Return the card of a model.

    Args:
        project: `name`, `purpose`, `owners` and `endpoint`, as the file says.
        human: The `card` section of the file.
        model: The bundle.
        problem: What was learned.
        selection: The leaderboard.
        results: Every check of the model, or lists of them.
        contracts: Results of the data contracts, or lists of them.
        rates: Error rates by group and intersection.
        curves: Curves, calibration, confusion.
        importances: How much the metric loses when a column is shuffled.
        tables: `name`, `rows`, `digest` and `columns` of the tables that the model rests on.
        split: How the rows were split: `by`, `test` (a share), `column` and `seed`, as the file says, and
            `train_rows` and `test_rows` if known; nothing is written of what is none.
    """
    book = Book()
    rows = [Row(r, *book.result(r)) for r in _flat(results)]
    verdict = gate_of({row.result.digest: row.result.record for row in rows})
    desk = Desk(
        book=book,
        project=project,
        human=human,
        problem=problem,
        model=book.add(model.version),
        selection=book.result(selection)[1] if isinstance(selection, CheckResult) else book.add(selection),
        gate=book.note("gate", verdict),
        results=rows,
        contracts=[Row(r, *book.result(r)) for r in _flat(contracts)],
        rates=book.add(rates) if rates else None,
        curves=book.add(curves) if curves else None,
        importances=book.add(importances) if importances else None,
        tables=[book.note("table", facts, str(facts.get("digest", ""))) for facts in tables],
        split=book.note("split", split) if split else None,
        missing=missing_words(project, human),
    )
    return Card(
        model=model.version.name,
        digest=model.version.digest,
        sections=(
            Section(key="details", title="Model details", blocks=tuple(_details(desk))),
            Section(key="intended-use", title="Intended use", blocks=tuple(_intended_use(desk))),
            Section(key="factors", title="Factors", blocks=tuple(_factors(desk))),
            Section(key="metrics", title="Metrics", blocks=tuple(_metrics(desk))),
            Section(key="evaluation-data", title="Evaluation data", blocks=tuple(_evaluation_data(desk))),
            Section(key="training-data", title="Training data", blocks=tuple(_training_data(desk))),
            Section(key="quantitative-analyses", title="Quantitative analyses", blocks=tuple(_quantitative(desk))),
            Section(key="ethics", title="Ethical considerations", blocks=tuple(_ethics(desk))),
            Section(key="caveats", title="Caveats and recommendations", blocks=tuple(_caveats(desk))),
        ),
        evidence=book.records,
        missing=desk.missing,
    )


def _flat(results: Sequence[Any]) -> list[CheckResult]:
    return [r for item in results for r in (item if isinstance(item, list | tuple) else [item])]


def _at(facts: Mapping[str, Any], path: str) -> Any:
    node: Any = facts
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def missing_words(project: Mapping[str, Any], human: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields that only a person can fill and nobody has; a model is not released while there are any.

    Args:
        project: `purpose` and `owners` of the declaration, as plain JSON.
        human: Its `card` section, as plain JSON.
    """
    parts = {"project": project, "human": human}
    return tuple(name for name, (part, path) in REQUIRED.items() if not _said(_at(parts[part], path)))


def _said(value: Any) -> list[str]:
    """Return what a person wrote as lines without anything that is blank."""
    items = value if isinstance(value, list | tuple) else [value]
    return [text for item in items if item is not None and (text := _owner(item).strip())]


def _owner(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    contact = str(item.get("contact") or "").removeprefix("mailto:")
    return f"{item.get('team') or ''} ({contact})" if contact else str(item.get("team") or "")


def _text(value: Any, title: str = "") -> list[Block]:
    lines = _said(value)
    if not lines:
        return []
    many = isinstance(value, list | tuple) and len(lines) > 1
    # A line break inside an item would end the list.
    text = "\n".join(f"- {' '.join(line.split())}" for line in lines) if many else lines[0]
    return [Block(type="text", title=title, text=text)]


def _facts(title: str, facts: Sequence[Fact | None]) -> list[Block]:
    there = tuple(fact for fact in facts if fact is not None)
    return [Block(type="facts", title=title, facts=there)] if there else []


def _optional(source: Source | None, label: str, path: str) -> Fact | None:
    found = source.get(path) if source else None
    return source.fact(label, path) if source and found not in (None, "", [], {}) else None


def _headline(desk: Desk) -> Row | None:
    """Return the check that measured the metric by which the model was chosen."""
    rows = [row for row in desk.results if row.evidence.get("measure") == desk.problem.metric]
    return next((row for row in rows if row.result.has("limit.value")), rows[0] if rows else None)


def _measured(label: str, row: Row) -> list[Fact | None]:
    unit = str(row.evidence.get("unit") or "")
    return [
        row.evidence.fact(label, "value", unit),
        _optional(row.evidence, f"{label} low", "interval.low"),
        _optional(row.evidence, f"{label} high", "interval.high"),
        _optional(row.result, f"{label} limit", "limit.value"),
        _optional(row.result, f"{label} limit op", "limit.op"),
    ]


def _glance(desk: Desk) -> list[Block]:
    facts: list[Fact | None] = []
    head = _headline(desk)
    title = measure_title(desk.problem.metric)
    if head is not None:
        facts += _measured(title, head)
    elif desk.selection.has("value"):
        facts.append(desk.selection.fact(f"{title} on the folds", "value"))
    facts.append(desk.gate.fact("Gate", "status"))
    for row in desk.results:
        if row.kind == "gap" and row.evidence.has("value"):
            across = ", ".join(row.evidence.get("details.across") or ())
            name = words(str(row.evidence.get("details.metric") or row.name)).lower()
            facts += _measured(f"Gap in {name}{f' across {across}' if across else ''}", row)
    facts.append(_optional(head.evidence if head else desk.rates, "Rows tested", "n"))
    return _facts(GLANCE, facts)


def _details(desk: Desk) -> list[Block]:
    model = desk.model
    facts = [
        model.fact("Name", "name"),
        model.fact("Version", "digest"),
        model.fact("Kind of model", "family"),
        model.fact("Format", "format"),
        model.fact("Problem", "signature.problem.task"),
        model.fact("Target", "signature.problem.target"),
        _optional(model, "Positive class", "signature.problem.positive"),
        _optional(model, "Classes", "signature.problem.classes"),
        _optional(model, "Environment", "environment"),
    ]
    blocks = [*_glance(desk), *_facts("", facts), *_text(desk.project.get("owners"), "Owners")]
    settings = [model.fact(name, f"params.{name}") for name in sorted(model.get("params") or {})]
    blocks += _facts("Settings", settings)
    reason = _optional(desk.selection, "Why this one", "details.reason")
    return [*blocks, *candidate_table(desk.selection), *_facts("", [reason])]


def _intended_use(desk: Desk) -> list[Block]:
    return [
        *_text(desk.project.get("purpose"), "Purpose"),
        *desk.text("intended_use.for", "Meant for"),
        *desk.text("intended_use.users", "Meant to be used by"),
        *desk.text("intended_use.not_for", "Not meant for"),
    ]


def _factors(desk: Desk) -> list[Block]:
    blocks = desk.text("factors", "Groups that results may differ by")
    if desk.rates is None:
        if not blocks:
            plain = "No factor was declared, so no error rate was measured by group."
            blocks = [Block(type="text", text=plain)]
        return blocks
    facts = [
        _optional(desk.rates, "Evaluated by", "details.factors"),
        _optional(desk.rates, "Fewest rows that tell of a group", "details.fewest"),
    ]
    return [*blocks, *_facts("", facts)]


def _metrics(desk: Desk) -> list[Block]:
    from modelyard.checks.metrics import METRICS

    problem, head = desk.problem, _headline(desk)
    known = METRICS.get(problem.metric)
    about = f": {known.about[:1].lower()}{known.about[1:].rstrip('.')}" if known else ""
    if problem.task != "multiclass":
        about = about.partition(" (multiclass")[0]
    blocks = [Block(type="text", text=f"The model was chosen by {measure_title(problem.metric)}{about}.")]
    measured = desk.rates.get("details.rates", []) if desk.rates else []
    if any(rate.name in measured for rate in RATES):
        text = "\n".join(f"- {rate.title}: {rate.about}" for rate in RATES if rate.name in measured)
        blocks.append(Block(type="text", title="Error rates", text=text))
    facts = [
        _optional(desk.rates, "Threshold of the decision", "details.threshold"),
        _optional(head.evidence if head else None, "Interval", "interval.method"),
        _optional(head.evidence if head else None, "Confidence", "interval.level"),
    ]
    return [*blocks, *_facts("Decisions and uncertainty", facts), *claims_table(desk.results)]


def _evaluation_data(desk: Desk) -> list[Block]:
    tested = [source for source in desk.tables if _role(source) == "test"]
    return [
        *desk.text("evaluation_data"),
        *table_facts("Rows that the model did not see in training", tested),
        *_facts("How the rows were split", _split_facts(desk.split)),
    ]


def _split_facts(split: Source | None) -> list[Fact | None]:
    if split is None:
        return []
    others = sorted(name for name, value in split.record.items() if not isinstance(value, Mapping))
    names = dict.fromkeys([*_SPLIT, *(name for name in others if name != "kind")])
    # Only chance has a seed: a split by time is what it is.
    by_time = split.get("by") == "time"
    return [_optional(split, _SPLIT.get(n, words(n)), n) for n in names if not (by_time and n == "seed")]


def _training_data(desk: Desk) -> list[Block]:
    trained = [source for source in desk.tables if _role(source) == "train"]
    others = [source for source in desk.tables if _role(source) == ""]
    return [
        *desk.text("training_data"),
        *table_facts("Rows that the model learned from", trained),
        *table_facts("Tables behind them", others),
        *rules_table("Data contracts", desk.contracts),
        *feature_table(desk.model),
    ]


def _role(source: Source) -> str:
    """Return `train`, `test` or nothing, as a table says itself or by its name (`split.train`)."""
    said = str(source.get("role") or str(source.get("name", "")).rpartition(".")[2])
    return said if said in ("train", "test") else ""


def _quantitative(desk: Desk) -> list[Block]:
    counts = [
        desk.gate.fact(words(name), name)
        for name in ("status", "checks", "passed", "failed", "insufficient", "skipped")
    ]
    return [
        *checks_table("Checks", desk.results),
        *_facts("Gate", counts),
        *curve_blocks(desk.curves),
        *group_blocks(desk.rates),
        *importance_blocks(desk.importances),
    ]


def _ethics(desk: Desk) -> list[Block]:
    tested = [row for row in desk.results if row.kind in _ETHICAL]
    return [*desk.text("ethics"), *checks_table("What was tested", tested)]


def _caveats(desk: Desk) -> list[Block]:
    open_ones, aside = (
        [row for row in rows if row.result.get("status") != "passed"] for rows in (desk.results, desk.contracts)
    )
    return [
        *desk.text("caveats"),
        *checks_table("What does not hold, or could not be answered", open_ones),
        *rules_table("Rows that were set aside", aside),
    ]
