"""What is counted of requests, and `GET /metrics`: the same as text for Prometheus.

A collector of our own: an answer appends to two lists, and a thousand of them are counted at once. A counter with
labels and a lock for each request cost ten times as much. Labels are names of our own table and of models that are
loaded, never what a caller made up, so no caller can make the counters grow.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from modelyard._kit.digest import short
from modelyard.serving.board import Family, Told

if TYPE_CHECKING:
    from modelyard.serving.http.exchange import Exchange
    from modelyard.serving.http.heads import Head
    from modelyard.serving.models import Models
    from modelyard.serving.service import Service

__all__ = ["BOUNDS", "TEXT", "Metrics", "Tally", "metrics", "told_of"]

# Upper bounds of the histogram of answered requests, in seconds.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
# Statuses from which on a request is not answered.
_REFUSED = 400
# Answers that are counted at once.
_MOST = 1024
_MS = [bound * 1000 for bound in BOUNDS]
# Name -> kind, and what it says.
_FAMILIES = {
    "requests_total": ("counter", "Requests by route, model, version and status."),
    "request_seconds": ("histogram", "Time from the headers to the answer."),
    "rows_total": ("counter", "Rows that the model answered."),
    "in_flight": ("gauge", "Requests that are being answered."),
    "ready": ("gauge", "1 if a request sent now would be answered."),
    "refused_total": ("counter", "Requests refused, by error code."),
    "guard_rows_total": ("counter", "Rows by guard and by what it did."),
    "guard_alarm": ("gauge", "1 while too many rows are refused or held back."),
    "feedback_total": ("counter", "Outcomes sent, by whether the request is known."),
    "log_backlog_rows": ("gauge", "Rows that wait to be logged."),
    "log_waited_total": ("counter", "Requests that waited for room in the log."),
    "log_rows_total": ("counter", "Rows that were logged."),
    "log_lost_total": ("counter", "Rows that were too large to be logged."),
}


class _Histogram:
    """Requests of one route by how long they took."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = array("q", bytes(8 * (len(BOUNDS) + 1)))
        self.seconds = 0.0


class Tally:
    """What one version of a model answered.

    Attributes:
        decided: (guard, what it did) -> rows; of several guards each counts a row.
        taken: Rows whose answer was taken from their caller, each once.
        refused: Those of them whose whole request was refused: they are not among the rows that were answered.
    """

    __slots__ = ("_by_path", "_lock", "_routes", "_times", "decided", "refused", "taken")

    def __init__(self) -> None:
        # What is not counted yet.
        self._times: list[float] = []
        self._routes: list[Any] = []
        self._by_path: dict[str, _Histogram] = {}
        self.decided: Counter[tuple[str, str]] = Counter()
        self.taken = self.refused = 0
        self._lock = threading.Lock()

    def decide(self, guard: str, did: str, rows: int = 1) -> None:
        """Count rows that a guard has decided on; large requests are looked at in a thread."""
        with self._lock:
            self.decided[guard, did] += rows

    def take(self, rows: int, *, refused: bool = False) -> None:
        """Count rows whose answer their caller does not get, once all guards have decided.

        Args:
            rows: How many; of a request that is refused, all.
            refused: Whether the whole request is.
        """
        with self._lock:
            self.taken += rows
            self.refused += rows if refused else 0

    def add(self, routes: list[Any], times: list[float]) -> None:
        """Count answered requests.

        Args:
            routes: The route that each came by.
            times: Milliseconds that each took.
        """
        self._routes += routes
        self._times += times
        if len(self._times) >= _MOST:
            self.settle()

    def by_path(self) -> dict[str, _Histogram]:
        """Return the histogram of each path."""
        self.settle()
        return self._by_path

    def settle(self) -> None:
        """Count what was appended."""
        routes, times = self._routes, self._times
        if not times:
            return
        self._routes, self._times = [], []
        # Of a thousand sorted times each bound needs one search; nearly always they came by one route.
        by_route: dict[int, tuple[Any, list[float]]] = {}
        if routes.count(routes[0]) == len(routes):
            by_route[0] = (routes[0], times)
        else:
            for route, ms in zip(routes, times, strict=True):
                by_route.setdefault(id(route), (route, []))[1].append(ms)
        for route, some in by_route.values():
            some.sort()
            path = getattr(route, "path", "") or "other"
            found = self._by_path.setdefault(path, _Histogram())
            found.seconds += sum(some) / 1000
            before = 0
            for at, bound in enumerate(_MS):
                upto = bisect_left(some, bound + 1e-9, before)
                found.buckets[at] += upto - before
                before = upto
            found.buckets[-1] += len(some) - before


class Metrics:
    """What a server counts beside its models.

    Attributes:
        other: (path, model, version, status) -> requests that no model answered: refusals, and pages about models.
        feedback: Outcomes that were sent, by whether their request is known.
        asking: Paths, of those, by which a model is asked.
    """

    def __init__(self) -> None:
        self.other: Counter[tuple[str, str, str, int]] = Counter()
        self.feedback: Counter[str] = Counter()
        self.asking: set[str] = set()

    def count(self, models: Models, exchange: Exchange, status: int) -> None:
        """Count a request that was refused, or answered without the model."""
        path, name, version, _ = self.label(models, exchange, status)
        self.other[path, name, exchange.drawn or version, status] += 1

    def label(self, models: Models, exchange: Exchange | Head, status: int) -> tuple[str, str, str, int]:
        """Return by what such a request is counted: path, endpoint, version, status."""
        path = getattr(exchange.route, "path", "") or "none"
        name = version = ""
        # What a stranger asked for is not a label: only what was found is.
        if path != "none" and (exchange.model or exchange.route.action == "infer"):
            service = models.known(exchange.model, exchange.version)
            if service is not None:
                name, version = service.endpoint, short(service.version.digest)
                if exchange.route.asks:
                    self.asking.add(path)
        return path, name, version, status

    def failed(self, name: str, version: str) -> int:
        """Return how many requests to a version of a model were refused, or given up by their callers."""
        return sum(
            count
            for (path, *of, status), count in self.other.items()
            if of == [name, version] and path in self.asking and status >= _REFUSED
        )


def metrics(models: Models, exchange: Exchange) -> None:
    """Answer `GET /metrics`; of several processes on one port with what all of them count."""
    told = Told()
    for one in exchange.head.seen:
        told.add(together(one)[0])
    exchange.reply(200, "\n".join([*_lines(told.families), ""]).encode(), content_type=TEXT)


def stats(seen: Sequence[Models]) -> dict[str, Any]:
    """Return the numbers of `/stats`: those of one endpoint, and of several each by its name, too."""
    found = {models.name: _stats(models) for models in seen}
    first = next(iter(found.values()))
    return first if len(found) == 1 else {**first, "endpoints": found}


def _stats(models: Models) -> dict[str, Any]:
    """Return the numbers of one endpoint; of several processes on one port what all of them count."""
    told, processes = together(models)
    more = {"processes": processes} if models.board is not None else {}
    own = models.default.stats() if models.loaded else {"endpoint": models.name, "model": ""}
    return {**own, **told.stats, **more, "refused": told.refused, **models.tried()}


def together(models: Models) -> tuple[Told, int]:
    """Return what is counted in all processes on the port, and how many there are."""
    own = tell(models)
    return (own, 1) if models.board is None else models.board.together(own)


def tell(models: Models) -> Told:
    """Return what this process has counted, also by versions that are gone."""
    whole = Told([Family(name, kind, what, {}) for name, (kind, what) in _FAMILIES.items()])
    for told in models.retired:
        whole.add(told, dead=True)
    for service in models:
        whole.add(told_of(service))
    whole.add(_beside(models))
    return whole


def told_of(service: Service) -> Told:
    """Return what one version has counted."""
    named = {"model": service.endpoint, "version": short(service.version.digest)}
    requests: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for path, found in service.tally.by_path().items():
        total = sum(found.buckets)
        requests[_sample("requests_total", {"route": path, **named, "status": "200"})] = total
        seconds.update(_histogram({"route": path, **named}, found, total))
    samples: dict[str, dict[str, float]] = {
        "requests_total": requests,
        "request_seconds": seconds,
        "rows_total": {_sample("rows_total", named): service.rows},
        "in_flight": {_sample("in_flight", named): service.in_flight},
        "ready": {_sample("ready", named): int(service.ready)},
        "guard_rows_total": {
            _sample("guard_rows_total", {**named, "guard": guard, "did": did}): count
            for (guard, did), count in sorted(service.tally.decided.items())
        },
    }
    counted = service.stats()
    return Told(_families(samples), {name: counted[name] for name in ("answered", "rows", "runs")}, {})


def _beside(models: Models) -> Told:
    """Return what is counted beside the versions."""
    log = models.log
    names = ("route", "model", "version", "status")
    samples: dict[str, dict[str, float]] = {
        "requests_total": {
            _sample("requests_total", dict(zip(names, map(str, key), strict=True))): count
            for key, count in sorted(models.metrics.other.items())
        },
        "refused_total": {
            _sample("refused_total", {"code": code}): count for code, count in sorted(models.refused.items())
        },
        "feedback_total": {
            _sample("feedback_total", {"request": key}): count for key, count in sorted(models.metrics.feedback.items())
        },
        "log_backlog_rows": {_sample("log_backlog_rows", {}): log.waiting},
        "log_waited_total": {_sample("log_waited_total", {}): log.waited},
        "log_rows_total": {_sample("log_rows_total", {}): log.logged},
        "log_lost_total": {_sample("log_lost_total", {}): log.lost},
    }
    if not models.loaded:
        samples["ready"] = {_sample("ready", {"model": models.name, "version": ""}): 0}
    if models.bell is not None:
        alarm = _sample("guard_alarm", {"model": models.name})
        samples["guard_alarm"] = {alarm: int(models.bell.watcher.on)}
    numbers: dict[str, int | float] = {"logged": log.logged, "waiting": log.waiting, "waited": log.waited}
    return Told(_families(samples), numbers, dict(models.refused))


def _families(samples: dict[str, dict[str, float]]) -> list[Family]:
    return [Family(name, *_FAMILIES[name], some) for name, some in samples.items()]


def _histogram(labels: dict[str, str], found: _Histogram, total: int) -> Iterator[tuple[str, float]]:
    for bound, count in zip((*BOUNDS, "+Inf"), accumulate(found.buckets), strict=True):
        yield _sample("request_seconds_bucket", {**labels, "le": str(bound)}), count
    yield _sample("request_seconds_sum", labels), found.seconds
    yield _sample("request_seconds_count", labels), total


def _lines(families: Iterable[Family]) -> Iterator[str]:
    for family in families:
        yield f"# HELP modelyard_{family.name} {family.what}"
        yield f"# TYPE modelyard_{family.name} {family.kind}"
        yield from (f"{name} {value}" for name, value in family.samples.items())


def _sample(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"modelyard_{name}{{{inside}}}" if inside else f"modelyard_{name}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
