"""Runs: the newest first, paged by id, filtered by status and words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from modelyard.records import RunStatus
from modelyard.web.answer import answer
from modelyard.web.pages.parts import RunRow, run_row
from modelyard.web.query import Query
from modelyard.web.reader import Reader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["RunsPage", "load", "view"]

STATUSES: tuple[str, ...] = get_args(RunStatus)
_PAGE = 50
_SCAN = 5000


@dataclass(frozen=True, slots=True)
class RunsPage:
    """A page of runs.

    Attributes:
        title: Title of the page.
        runs: At most 50 runs, newest first.
        longest: Seconds of the longest of them, for the bars.
        status: The status asked for; empty for all.
        q: The words asked for.
        statuses: Every status there is.
        older: Id to give as `before` for the next page; empty on the last.
        before: The id this page began before; empty on the first.
        scanned: Runs looked at to fill this page.
        total: Runs there are.
        live: Whether one of them is running.
    """

    title: str
    runs: tuple[RunRow, ...]
    longest: float
    status: str
    q: str
    statuses: tuple[str, ...]
    older: str
    before: str
    scanned: int
    total: int
    live: bool


def load(store: Reader, query: Query) -> RunsPage:
    """Read one page of runs."""
    status, words, before = query.choice("status", STATUSES), query.text("q"), query.text("before")
    catalog = store.catalog()
    rows: list[RunRow] = []
    scanned, at, more = 0, before, True
    while more and len(rows) <= _PAGE and scanned < _SCAN:
        batch = store.ledger.runs(before=at, limit=200 if status or words else _PAGE + 1)
        more = bool(batch)
        for run in batch:
            scanned, at = scanned + 1, run.id
            row = run_row(store, run, catalog.tallies.get(run.id))
            if _fits(row, status, words):
                rows.append(row)
                if len(rows) > _PAGE:
                    break
    # One row more than a page says that there is a next one; it opens that page.
    shown = rows[:_PAGE]
    older = shown[-1].id if len(rows) > _PAGE else (at if more and scanned >= _SCAN else "")
    return RunsPage(
        title="Runs",
        runs=tuple(shown),
        longest=max((row.seconds for row in shown), default=0.0),
        status=status,
        q=words,
        statuses=STATUSES,
        older=older,
        before=before,
        scanned=scanned,
        total=len(catalog.tallies),
        live=any(row.status == "running" for row in shown),
    )


def _fits(row: RunRow, status: str, words: str) -> bool:
    if status and row.status != status:
        return False
    text = " ".join((row.id, row.project, row.status, row.actor, row.reason, *row.failed, *row.failing)).lower()
    return all(word in text for word in words.lower().split())


async def view(request: Request) -> Response:
    """Answer `/runs`."""
    return await answer(request, load, "runs.html")
