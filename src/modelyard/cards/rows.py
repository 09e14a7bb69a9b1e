"""Tables of facts: checks, claims, candidates, tables and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.cards.facts import Source
from modelyard.cards.figures import chart
from modelyard.cards.tables import row_paths
from modelyard.cards.words import measure_title
from modelyard.records import Block, CheckResult, Fact

__all__ = [
    "Row",
    "candidate_table",
    "cell",
    "checks_table",
    "claims_table",
    "feature_table",
    "rules_table",
    "table_facts",
]

# The values of a category that are listed; more of them are only in the signature.
_MOST_VALUES = 12


@dataclass(frozen=True, slots=True)
class Row:
    """The result of a check and its evidence, both in the book.

    Attributes:
        given: The result.
        result: Its record: status, reason, limit.
        evidence: The record of what was measured.
    """

    given: CheckResult
    result: Source
    evidence: Source

    @property
    def name(self) -> str:
        """Name of the check."""
        return self.given.check.name

    @property
    def kind(self) -> str:
        """Kind of the check."""
        return self.given.check.type


def cell(source: Source, label: str, path: str, unit: str = "") -> Fact:
    """Copy a fact, or leave the cell empty where the record has nothing there."""
    if not path or not source.has(path):
        return Fact(label=label, value=None)
    return source.fact(label, path, unit)


def checks_table(title: str, rows: Sequence[Row]) -> list[Block]:
    """Return what came out of checks: status, value with its interval, limit, rows and the reason."""
    made = []
    for row in rows:
        name, unit = row.name, str(row.evidence.get("unit") or "")
        made.append(
            (
                row.result.fact(f"{name}, name", "check.name"),
                row.result.fact(f"{name}, status", "status"),
                cell(row.evidence, name, "value", unit),
                cell(row.evidence, f"{name}, lower bound", "interval.low"),
                cell(row.evidence, f"{name}, upper bound", "interval.high"),
                cell(row.result, f"{name}, limit", "limit.value", str(row.result.get("limit.unit") or "")),
                cell(row.result, f"{name}, sense of the limit", "limit.op"),
                cell(row.evidence, f"{name}, rows", "n"),
                row.result.fact(f"{name}, reason", "reason"),
            )
        )
    header = ("Check", "Status", "Value", "Value low", "Value high", "Limit", "Limit op", "Rows", "Reason")
    return [Block(type="table", title=title, header=header, rows=tuple(made))] if made else []


def rules_table(title: str, rows: Sequence[Row]) -> list[Block]:
    """Return what came out of the rules of data contracts: bad rows, all rows, and what became of them.

    There is no status: where bad rows stop a run, there is no card; else they were set aside, as the file asks.
    """
    made = [
        (
            row.result.fact(f"{row.name}, name", "check.name"),
            cell(row.evidence, f"{row.name}, bad rows", "value"),
            cell(row.evidence, f"{row.name}, rows", "n"),
            row.result.fact(f"{row.name}, what came of them", "reason"),
        )
        for row in rows
    ]
    header = ("Rule", "Bad rows", "Rows", "What came of them")
    return [Block(type="table", title=title, header=header, rows=tuple(made))] if made else []


def claims_table(rows: Sequence[Row]) -> list[Block]:
    """Return what is demanded of the model: measure, limit, whether it stops a release."""
    made = [
        (
            row.result.fact(f"{row.name}, claim", "check.name"),
            Fact(label=f"{row.name}, measure", value=measure_title(str(row.evidence.get("measure")))),
            cell(row.result, f"{row.name}, demanded", "limit.value", str(row.result.get("limit.unit") or "")),
            cell(row.result, f"{row.name}, sense of the limit", "limit.op"),
            row.result.fact(f"{row.name}, blocking", "check.blocking"),
            cell(row.evidence, f"{row.name}, method", "method"),
        )
        for row in rows
    ]
    header = ("Claim", "Measure", "Limit", "Limit op", "Blocking", "How it is measured")
    return [Block(type="table", title="What is demanded", header=header, rows=tuple(made))] if made else []


def candidate_table(selection: Source) -> list[Block]:
    """Return the candidates with their scores, and the chart of their folds."""
    rows: list[tuple[Fact, ...]] = []
    for path in row_paths(selection, "details.rows"):
        name = str(selection.get(f"{path}.family"))
        rows.append(
            (
                cell(selection, f"{name}, family", f"{path}.family"),
                cell(selection, f"{name}, mean score", f"{path}.mean"),
                cell(selection, f"{name}, spread", f"{path}.deviation"),
                cell(selection, f"{name}, trials", f"{path}.trials"),
                cell(selection, f"{name}, relative cost", f"{path}.cost"),
                cell(selection, f"{name}, p against the best", f"{path}.p_value"),
                cell(selection, f"{name}, why it is out", f"{path}.failed" if selection.get(f"{path}.failed") else ""),
            )
        )
    if not rows:
        return []
    metric = measure_title(str(selection.get("measure")))
    header: tuple[str, ...] = (
        "Candidate",
        f"Mean {metric}",
        "Deviation",
        "Trials",
        "Cost",
        "p against the best",
        "Out because",
    )
    if all(row[-1].value is None for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    blocks = [Block(type="table", title="Candidates", header=header, rows=tuple(rows))]
    drawn = chart("leaderboard", selection)
    if drawn is not None:
        text = "Each dot is one fold, the bar is their mean; all candidates were scored on the same folds."
        blocks.append(
            Block(type="chart", title="Candidates on the folds", text=text, chart=drawn, evidence=selection.digest)
        )
    return blocks


def table_facts(title: str, tables: Sequence[Source]) -> list[Block]:
    """Return name, rows and digest of tables."""
    rows = tuple(
        (
            cell(source, f"{source.get('name')}, name", "name"),
            cell(source, f"{source.get('name')}, rows", "rows"),
            cell(source, f"{source.get('name')}, digest", "digest"),
        )
        for source in tables
    )
    return [Block(type="table", title=title, header=("Table", "Rows", "Digest"), rows=rows)] if rows else []


def feature_table(model: Source) -> list[Block]:
    """Return the columns that the model takes, with the range or the values seen in training."""
    rows = []
    for path in row_paths(model, "signature.features"):
        name = str(model.get(f"{path}.name"))
        few = 0 < len(model.get(f"{path}.categories") or ()) <= _MOST_VALUES
        rows.append(
            (
                cell(model, f"{name}, name", f"{path}.name"),
                cell(model, f"{name}, type", f"{path}.type"),
                cell(model, f"{name}, lowest", f"{path}.low"),
                cell(model, f"{name}, highest", f"{path}.high"),
                cell(model, f"{name}, values", f"{path}.categories" if few else ""),
            )
        )
    header = ("Column", "Type", "Lowest", "Highest", "Values")
    return [Block(type="table", title="What the model takes", header=header, rows=tuple(rows))] if rows else []
