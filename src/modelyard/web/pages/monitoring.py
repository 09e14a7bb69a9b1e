"""Monitoring: how far the newest requests of each endpoint moved from the training data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.records import CheckResult, Event
from modelyard.web.answer import answer
from modelyard.web.query import Query
from modelyard.web.reader import Catalog, Reader

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["DriftRow", "MonitoringPage", "Past", "Watched", "load", "view", "watched"]

_PAST = 40


@dataclass(frozen=True, slots=True)
class DriftRow:
    """One result of a watch.

    Attributes:
        name: Name of the check.
        feature: The column (or `prediction`) it looks at.
        measure: Name of the measure, e.g. `psi`.
        value: What was measured.
        bound: The limit; none if it is only reported.
        status: What came of it.
        reason: One sentence with the numbers in it.
        trend: Its values in the newest watches, oldest first, this one last.
    """

    name: str
    feature: str
    measure: str
    value: float | None
    bound: float | None
    status: str
    reason: str
    trend: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """One watch in the history of an endpoint.

    Attributes:
        seq: Its sequence number in the ledger.
        time: When it ended, in seconds since 1970 UTC.
        rows: Requests looked at.
        passed: Results that passed.
        results: Results there were.
        worst: The feature that moved furthest.
        value: How far.
        model: Digest of the model that answered.
    """

    seq: int
    time: float
    rows: int
    passed: int
    results: int
    worst: str
    value: float | None
    model: str


@dataclass(frozen=True, slots=True)
class Watched:
    """The newest watch of one endpoint.

    Attributes:
        endpoint: Name of the endpoint.
        model: Digest of the model that answered.
        time: When the watch ended, in seconds since 1970 UTC.
        rows: Requests in the window.
        begins: Time of the first of them; 0 if it is not known.
        ends: Time of the last of them; 0 if it is not known.
        results: Its results, those past their limit first, then by how far.
        counts: Results by status.
        past: The newest 40 watches, newest first.
        scale: The value that fills a bar.
    """

    endpoint: str
    model: str
    time: float
    rows: int
    begins: float
    ends: float
    results: tuple[DriftRow, ...]
    counts: dict[str, int]
    past: tuple[Past, ...]
    scale: float


@dataclass(frozen=True, slots=True)
class MonitoringPage:
    """What was watched.

    Attributes:
        title: Title of the page.
        endpoints: The newest watch of each endpoint.
    """

    title: str
    endpoints: tuple[Watched, ...]


def load(store: Reader, query: Query) -> MonitoringPage:
    """Read the newest watch of every endpoint."""
    return MonitoringPage("Monitoring", watched(store.catalog()))


def watched(catalog: Catalog) -> tuple[Watched, ...]:
    """Return the newest watch of every endpoint, with its history."""
    return tuple(_watched(endpoint, list(events)) for endpoint, events in sorted(catalog.watches.items()) if events)


def _watched(endpoint: str, events: list[Event]) -> Watched:
    newest = events[-1]
    read = {event.seq: _results(event) for event in events}
    trends: dict[str, list[float | None]] = {}
    for results in read.values():
        for result in results:
            trends.setdefault(result.check.name, []).append(result.evidence.value)
    rows = [_drift_row(result, tuple(trends[result.check.name][-20:])) for result in read[newest.seq]]
    rows.sort(key=lambda row: (row.status == "passed", -(row.value or 0.0)))
    window = _window(newest)
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    known = [v for row in rows if row.measure == "psi" for v in (row.value, (row.bound or 0.0) * 1.6) if v is not None]
    return Watched(
        endpoint=endpoint,
        model=str(newest.payload.get("model", "")),
        time=newest.time,
        rows=int(_number(window, "rows")),
        begins=_number(window, "from"),
        ends=_number(window, "to"),
        results=tuple(rows),
        counts=counts,
        past=tuple(_past(event, read[event.seq]) for event in reversed(events[-_PAST:])),
        scale=max(known, default=0.0) or 1.0,
    )


def _window(event: Event) -> dict[str, Any]:
    window = event.payload.get("window")
    return window if isinstance(window, dict) else {}


def _number(window: dict[str, Any], name: str) -> float:
    value = window.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _results(event: Event) -> list[CheckResult]:
    found = []
    for item in event.payload.get("results", []):
        try:
            found.append(msgspec.convert(item, CheckResult))
        except msgspec.ValidationError:
            continue
    return found


def _feature(result: CheckResult) -> str:
    for place in (result.evidence.details, result.check.params):
        for key in ("feature", "column"):
            if isinstance(place.get(key), str):
                return str(place[key])
    return result.check.name.partition(".")[2] or result.check.name


def _drift_row(result: CheckResult, trend: tuple[float | None, ...]) -> DriftRow:
    return DriftRow(
        name=result.check.name,
        feature=_feature(result),
        measure=result.evidence.measure,
        value=result.evidence.value,
        bound=result.limit.value if result.limit else None,
        status=result.status,
        reason=result.reason,
        trend=trend,
    )


def _past(event: Event, results: list[CheckResult]) -> Past:
    moved = [one for one in results if one.evidence.value is not None and one.evidence.measure == "psi"]
    worst = max(moved, key=lambda one: one.evidence.value or 0.0, default=None)
    return Past(
        seq=event.seq,
        time=event.time,
        rows=int(_number(_window(event), "rows")),
        passed=sum(one.status == "passed" for one in results),
        results=len(results),
        worst=_feature(worst) if worst else "",
        value=worst.evidence.value if worst else None,
        model=str(event.payload.get("model", "")),
    )


async def view(request: Request) -> Response:
    """Answer `/monitoring`."""
    return await answer(request, load, "monitoring.html")
