"""Values that several pages show: a row of a run, of a check, of a table version, of a model version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelyard._kit.text import number
from modelyard.records import CheckResult, ModelVersion, Run, TableVersion
from modelyard.web.reader import Catalog, Made, Moved, Reader, Tally, Trend, values_in

__all__ = [
    "UNMET",
    "CheckRow",
    "ModelRow",
    "RunRow",
    "TableLink",
    "check_rows",
    "counts_text",
    "is_quarantine",
    "latest_card",
    "latest_run",
    "look",
    "measured",
    "model_row",
    "run_row",
    "table_link",
]

# Statuses of a check that does not hold.
UNMET = ("failed", "insufficient")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run in a list.

    Attributes:
        id: Its id.
        project: Name of the project.
        status: `running`, `succeeded`, `failed`, `cancelled` or `interrupted`.
        started: Seconds since 1970 UTC.
        seconds: Wall time, up to now while it runs.
        actor: Who started it.
        steps: Steps it has dealt with.
        cached: How many of them were found in the ledger.
        failed: Names of the steps that failed.
        checks: Checks of the model it made; the rules of data contracts are not counted among them.
        failing: Names of the checks that failed or had too few rows.
        stopping: Those of them that block.
        reason: Why it failed or was cancelled.
    """

    id: str
    project: str
    status: str
    started: float
    seconds: float
    actor: str
    steps: int
    cached: int
    failed: tuple[str, ...]
    checks: int
    failing: tuple[str, ...]
    stopping: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One result of a check.

    Attributes:
        name: Name of the check.
        type: Kind of the check.
        status: `passed`, `failed`, `insufficient` or `skipped`.
        blocking: Whether a failure stops the run.
        reason: One sentence with the numbers in it.
        measure: Name of the measure.
        value: What was measured.
        unit: Its unit.
        limit: What it was compared with, as text; empty if nothing.
        bound: The limit as a number.
        op: `at_least`, `at_most`, `equal`; empty without a limit.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Confidence of the interval.
        interval_method: How the interval was made.
        n: Rows measured.
        seed: Seed of what was drawn.
        method: How it was measured.
        run: Id of the run.
        step: Name of the step that made it.
        model: Digest of the model measured.
        data: Digests of the tables measured.
        trend: Its values in the newest runs, oldest first, this one last.
    """

    name: str
    type: str
    status: str
    blocking: bool
    reason: str
    measure: str
    value: float | None
    unit: str
    limit: str
    bound: float | None
    op: str
    low: float | None
    high: float | None
    level: float | None
    interval_method: str
    n: int
    seed: int | None
    method: str
    run: str
    step: str
    model: str
    data: tuple[str, ...]
    trend: tuple[Trend, ...]

    @property
    def look(self) -> str:
        """Its status as it is shown, see `look`."""
        return look(self.type, self.status, blocking=self.blocking)


@dataclass(frozen=True, slots=True)
class TableLink:
    """A table version by name and digest.

    Attributes:
        name: Name of the table; empty for a digest no run of this ledger made.
        digest: Digest of its content.
        rows: Rows stored.
    """

    name: str
    digest: str
    rows: int


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model version in a list.

    Attributes:
        name: Name of the model.
        digest: Digest of its files.
        family: Family that won.
        format: Format of its file.
        released: Whether it has a card.
        aliases: Where it answers now, e.g. `income: champion`.
        run: Id of the run that trained it.
        time: When, in seconds since 1970 UTC.
    """

    name: str
    digest: str
    family: str
    format: str
    released: bool
    aliases: tuple[str, ...]
    run: str
    time: float


def look(kind: str, status: str, *, blocking: bool) -> str:
    """Return a status as it is shown: bad rows that were set aside, as the file asks, are a notice and no failure.

    >>> look("contract", "failed", blocking=False), look("contract", "failed", blocking=True)
    ('aside', 'failed')
    """
    return "aside" if kind == "contract" and status == "failed" and not blocking else status


def run_row(store: Reader, run: Run, tally: Tally | None) -> RunRow:
    """Return a run as a row, with what the catalogue knows of its steps and checks."""
    tally = tally or Tally()
    status = store.status(run)
    ended = run.ended or (tally.last if status == "interrupted" else store.clock())
    failing = {name: blocks for name, (how, blocks) in tally.checks.items() if how in UNMET}
    return RunRow(
        id=run.id,
        project=run.project,
        status=status,
        started=run.started,
        seconds=max(0.0, ended - run.started),
        actor=run.actor,
        steps=tally.steps,
        cached=tally.cached,
        failed=tally.failed,
        checks=len(tally.checks),
        failing=tuple(failing),
        stopping=tuple(name for name, blocks in failing.items() if blocks),
        reason=run.reason,
    )


def check_rows(run: Run, catalog: Catalog) -> tuple[CheckRow, ...]:
    """Return what every check of a run came to: what stops the run first, data contracts after the model."""
    rows: dict[str, CheckRow] = {}
    for step in run.steps:
        for _, value in values_in(step.outputs):
            if isinstance(value, CheckResult):
                rows[value.check.name] = _check_row(value, run.id, step.name, catalog)
    return tuple(sorted(rows.values(), key=_rank))


def _rank(row: CheckRow) -> tuple[bool, bool, bool]:
    unmet = row.status in UNMET
    return not (unmet and row.blocking), row.type == "contract", not unmet


def _check_row(result: CheckResult, run: str, step: str, catalog: Catalog) -> CheckRow:
    evidence, limit, interval = result.evidence, result.limit, result.evidence.interval
    trend = [one for one in list(catalog.trends.get(result.check.name, ())) if one.run <= run]
    return CheckRow(
        name=result.check.name,
        type=result.check.type,
        status=result.status,
        blocking=result.check.blocking,
        reason=result.reason,
        measure=evidence.measure,
        value=evidence.value,
        unit=evidence.unit,
        limit=str(limit) if limit else "",
        bound=limit.value if limit else None,
        op=limit.op if limit else "",
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        level=interval.level if interval else None,
        interval_method=interval.method if interval else "",
        n=evidence.n,
        seed=evidence.seed,
        method=evidence.method,
        run=run,
        step=step,
        model=evidence.model,
        data=evidence.data,
        trend=tuple(trend[-20:]),
    )


def is_quarantine(name: str) -> bool:
    """Say whether a table holds rows that broke a contract and were set aside."""
    return name.endswith(".quarantine")


def table_link(catalog: Catalog, digest: str) -> TableLink:
    """Return the table version a digest stands for."""
    made: Made[TableVersion] | None = catalog.table(digest)
    return TableLink(made.value.name, digest, made.value.rows) if made else TableLink("", digest, 0)


def model_row(made: Made[ModelVersion], aliases: Iterable[Moved]) -> ModelRow:
    """Return a model version as a row, with the aliases that point at it now."""
    model = made.value
    return ModelRow(
        name=model.name,
        digest=model.digest,
        family=model.family,
        format=model.format,
        released=model.released,
        # Once, in however many stages it answers.
        aliases=tuple(dict.fromkeys(move.alias for move in aliases if move.digest == model.digest)),
        run=made.run,
        time=made.time,
    )


def latest_run(store: Reader, *, ended: bool = False) -> Run | None:
    """Return the newest run with its steps; with `ended`, the newest that has made a check or has ended."""
    before = ""
    while runs := store.ledger.runs(before=before, limit=20):
        for run in runs:
            if not ended or run.status != "running" or store.catalog().tallies.get(run.id, Tally()).checks:
                return store.ledger.run(run.id)
        before = runs[-1].id
    return None


def latest_card(catalog: Catalog) -> str:
    """Return the id of the run that made the newest card; empty if there is none."""
    return next(reversed(catalog.cards), "")


def measured(value: float | None, unit: str = "") -> str:
    """Return a measured value with its unit, `n/a` for none.

    >>> measured(0.31, "ms"), measured(1.0, "rows"), measured(None, "ms")
    ('0.31 ms', '1 row', 'n/a')
    """
    if value is None or not unit:
        return number(value)
    return f"{number(value)} {unit.removesuffix('s') if unit == 'rows' and value == 1 else unit}"


def counts_text(checks: Iterable[CheckRow]) -> dict[str, int]:
    """Count the results by status as it is shown, those that occur."""
    counts: dict[str, int] = {}
    for row in checks:
        counts[row.look] = counts.get(row.look, 0) + 1
    return counts
