"""Checks: every result of a run or of a model, with value, limit, interval and reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from modelyard.records import Run, Status
from modelyard.web.answer import answer
from modelyard.web.pages.models import find_model
from modelyard.web.pages.parts import CheckRow, RunRow, check_rows, counts_text, latest_run, run_row
from modelyard.web.pages.run import find_run
from modelyard.web.query import Query
from modelyard.web.reader import Reader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["ChecksPage", "load", "view"]

STATUSES: tuple[str, ...] = (*get_args(Status), "aside")


@dataclass(frozen=True, slots=True)
class ChecksPage:
    """The results of one run.

    Attributes:
        title: Title of the page.
        run: The run they belong to; none while there is no run.
        model: Digest of the model they are narrowed to; empty for all.
        checks: The results, failed ones first.
        counts: Results of the run by status as it is shown, before narrowing by status or words.
        blocking: Checks that could stop the run.
        status: The status asked for; empty for all.
        statuses: Every status there is.
        q: The words asked for.
        runs: The newest runs that made checks, to choose from.
    """

    title: str
    run: RunRow | None
    model: str
    checks: tuple[CheckRow, ...]
    counts: dict[str, int]
    blocking: int
    status: str
    statuses: tuple[str, ...]
    q: str
    runs: tuple[str, ...]


def load(store: Reader, query: Query) -> ChecksPage:
    """Read the results of the run asked for, of the run that made the model asked for, or of the newest.

    Raises:
        NotFound: There is no such run or model.
    """
    catalog = store.catalog()
    status, words, model = query.choice("status", STATUSES), query.text("q"), query.text("model")
    run: Run | None
    if query.text("run"):
        run = find_run(store, query.text("run"))
    elif model:
        run = store.ledger.run(find_model(store, model).run)
    else:
        run = latest_run(store, ended=True)
    rows = check_rows(run, catalog) if run else ()
    if model:
        rows = tuple(row for row in rows if row.model.startswith(model))
    shown = tuple(row for row in rows if (not status or row.look == status) and _fits(row, words))
    ids = [one for one, tally in list(catalog.tallies.items()) if tally.checks]
    return ChecksPage(
        title="Checks",
        run=run_row(store, run, catalog.tallies.get(run.id)) if run else None,
        model=model,
        checks=shown,
        counts=counts_text(rows),
        blocking=sum(row.blocking for row in rows),
        status=status,
        statuses=STATUSES,
        q=words,
        runs=tuple(sorted(ids, reverse=True)[:20]),
    )


def _fits(row: CheckRow, words: str) -> bool:
    text = f"{row.name} {row.type} {row.measure} {row.look} {row.reason}".lower()
    return all(word in text for word in words.lower().split())


async def view(request: Request) -> Response:
    """Answer `/checks`."""
    return await answer(request, load, "checks.html")
