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

__all__ = ["FeatureRow", "MonitoringPage", "OtherRow", "Past", "Watched", "load", "view", "watched"]

_PAST = 40
_PSI, _KS = "psi", "ks"


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """How far one column, or the predictions, moved.

    Attributes:
        feature: The column, `prediction` or `prediction.label`.
        status: What came of it: `failed` if one of its measures is past its limit.
        psi: Population stability index.
        bound: Its limit; none if it is only reported.
        ks: Kolmogorov-Smirnov distance of a number; none for a category.
        ks_bound: Its limit; none if it is only reported.
        reason: One sentence with the numbers in it, of the measure that failed or of the index.
        trend: The index in the newest watches, oldest first, this one last.
    """

    feature: str
    status: str
    psi: float | None
    bound: float | None
    ks: float | None
    ks_bound: float | None
    reason: str
    trend: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class OtherRow:
    """A result about the whole window: missing or unseen values, a live metric, too few requests.

    Attributes:
        name: Name of the check.
        status: What came of it.
        value: What was measured.
        unit: Its unit.
        bound: The limit; none if it is only reported.
        op: `at_least`, `at_most`, `equal`; empty without a limit.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Requests measured.
        reason: One sentence with the numbers in it.
    """

    name: str
    status: str
    value: float | None
    unit: str
    bound: float | None
    op: str
    low: float | None
    high: float | None
    n: int
    reason: str


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
        features: How far each column moved, those past a limit first, then by how far.
        others: Results about the whole window.
        counts: Columns and other results by status.
        past: The newest 40 watches, newest first.
        scale: The index that fills a bar.
    """

    endpoint: str
    model: str
    time: float
    rows: int
    begins: float
    ends: float
    features: tuple[FeatureRow, ...]
    others: tuple[OtherRow, ...]
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
        for one in results:
            if one.evidence.measure == _PSI:
                trends.setdefault(_feature(one), []).append(one.evidence.value)
    features = _features(read[newest.seq], trends)
    others = tuple(_other(one) for one in read[newest.seq] if one.evidence.measure not in (_PSI, _KS))
    counts: dict[str, int] = {}
    for status in [row.status for row in features] + [row.status for row in others]:
        counts[status] = counts.get(status, 0) + 1
    limits = [row.bound for row in features if row.bound]
    furthest = max((row.psi or 0.0 for row in features), default=0.0)
    window = _window(newest)
    return Watched(
        endpoint=endpoint,
        model=str(newest.payload.get("model", "")),
        time=newest.time,
        rows=int(_number(window, "rows")),
        begins=_number(window, "from"),
        ends=_number(window, "to"),
        features=features,
        others=others,
        counts=counts,
        past=tuple(_past(event, read[event.seq]) for event in reversed(events[-_PAST:])),
        # A column that moved out of all bounds must not press the others into a line.
        scale=min(max(furthest, 1.6 * max(limits)), 8 * max(limits)) if limits else furthest or 1.0,
    )


def _features(results: list[CheckResult], trends: dict[str, list[float | None]]) -> tuple[FeatureRow, ...]:
    found: dict[str, dict[str, CheckResult]] = {}
    for one in results:
        if one.evidence.measure in (_PSI, _KS):
            found.setdefault(_feature(one), {})[one.evidence.measure] = one
    rows = []
    for feature, measures in found.items():
        psi, ks = measures.get(_PSI), measures.get(_KS)
        told = next((one for one in measures.values() if one.status == "failed"), psi or ks)
        rows.append(
            FeatureRow(
                feature=feature,
                status=told.status if told else "skipped",
                psi=psi.evidence.value if psi else None,
                bound=psi.limit.value if psi and psi.limit else None,
                ks=ks.evidence.value if ks else None,
                ks_bound=ks.limit.value if ks and ks.limit else None,
                reason=told.reason if told else "",
                trend=tuple(trends.get(feature, ())[-20:]),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.status != "failed", -(row.psi or 0.0))))


def _other(one: CheckResult) -> OtherRow:
    interval = one.evidence.interval
    return OtherRow(
        name=one.check.name,
        status=one.status,
        value=one.evidence.value,
        unit=one.evidence.unit,
        bound=one.limit.value if one.limit else None,
        op=one.limit.op if one.limit else "",
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        n=one.evidence.n,
        reason=one.reason,
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


def _past(event: Event, results: list[CheckResult]) -> Past:
    moved = [one for one in results if one.evidence.value is not None and one.evidence.measure == _PSI]
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
